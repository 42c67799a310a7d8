"""Files of strangers: whatever they hold, a reader gives their content or one sentence, soon and in little memory."""

from __future__ import annotations

import os
import tracemalloc

import numpy as np
import pytest
import yaml

from lidistill.configuration import apply_overrides
from lidistill.parsing import MOST_DEPTH, MOST_NODES, parse_json, parse_yaml, read_json, read_json_lines, read_yaml
from lidistill.reading import MissingFile, opened, read_text
from lidistill.run_folder import RunFolder
from lidistill.types import InputError

DOUBLING = "\n".join(["a0: &a0 [1, 2]", *(f"a{row}: &a{row} [*a{row - 1}, *a{row - 1}]" for row in range(1, 40))])
MERGING = "\n".join(
    ["a0: &a0 {k: 1}", *(f"a{row}: &a{row} {{<<: [{', '.join([f'*a{row - 1}'] * 9)}]}}" for row in range(1, 12))]
)


@pytest.mark.parametrize("bomb", [DOUBLING, MERGING], ids=["lists", "merges"])
def test_an_alias_counts_as_all_that_it_stands_for(tmp_path, bomb):
    path = tmp_path / "a.yaml"
    path.write_text(bomb)
    tracemalloc.start()
    with pytest.raises(InputError, match=rf"a.yaml: line \d+ holds more than {MOST_NODES} values, counting the"):
        read_yaml(path)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_aliases_and_merges_as_people_write_them_are_read():
    text = (
        "base: &base {steps: 10, rate: 0.5}\nrow: {<<: *base, steps: 20}\nagain: *base\nlast: {<<: [*base, {other: 1}]}"
    )
    assert parse_yaml(text, "x") == yaml.safe_load(text)


def test_an_alias_of_what_it_stands_in_is_refused():
    with pytest.raises(InputError, match="line 1 holds more than"):
        parse_yaml("a: &a [1, *a]", "x")


@pytest.mark.parametrize(
    "text",
    [
        "a: 1",
        "a: [1, 2.5, -3, .5, 1e3, 0x1f, ~, null, true, no, text, 'q']",
        "a: {b: {c: []}}",
        "{}",
        "a: 'né'",
        "- 1\n- 2",
    ],
)
def test_plain_yaml_is_read_as_it_was(text):
    assert parse_yaml(text, "x") == yaml.safe_load(text)


@pytest.mark.parametrize("text", ["2024-01-01", "2024-13-45", "2024-01-01 10:11:12", "="])
def test_dates_stay_text(text):
    assert parse_yaml(f"a: {text}", "x") == {"a": text}


@pytest.mark.parametrize(
    "text, problem",
    [
        ("a: " + "9" * 5000, "a whole number of 5000 digits"),
        ("a: " + "9" * 20, "a whole number of 20 digits"),
        ("a: " + "[" * 5000 + "]" * 5000, f"more than {MOST_DEPTH} nested lists"),
        ("a: " + "{a: " * 5000, f"more than {MOST_DEPTH} nested lists"),
        ("\n".join("  " * row + "a:" for row in range(200)), f"more than {MOST_DEPTH} nested lists"),
        ("1: x", "the key '1', which is not text"),
        ("null: x", "the key 'null', which is not text"),
        ("? [1, 2]\n: x", "the key a list or mapping, which is not text"),
        ("seed: 1\nseed: 2", "the key 'seed' twice"),
        (r'a: "\0"', "a character that no text can hold"),
        (r'a: "\ud800"', "a character that no text can hold"),
        ("a: !!int x", "a value that does not fit its tag"),
        ("a: !!bool x", "a value that does not fit its tag"),
        ("a: !!float x", "a value that does not fit its tag"),
        ("a: !!timestamp 2024-13-45", "is not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", "is not valid YAML"),
        ("a: *nobody", "is not valid YAML"),
        ("a: \x07", "line 1 is not valid YAML"),
        ("a: 1\n--- \nb: 2", "is not valid YAML"),
        ("a: [1", "is not valid YAML"),
    ],
    ids=lambda text: text[:24],
)
def test_yaml_that_no_settings_need_is_a_sentence_with_its_line(text, problem):
    with pytest.raises(InputError) as caught:
        parse_yaml(text, "file.yaml")
    assert problem in str(caught.value) and str(caught.value).startswith("file.yaml: ")


@pytest.mark.parametrize(
    "text, problem",
    [
        ('{"a": ' + "9" * 5000 + "}", "a whole number of 5000 digits"),
        ('{"a": ' + "9" * 25 + "}", "a whole number of 25 digits"),
        ('{"a": ' + "[" * 100_000, "nested too deeply|is not valid JSON"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", f"more than {MOST_DEPTH} nested lists"),
        ('{"a": NaN}', "a number that is not finite"),
        ('{"a": 1e999}', "a number that is not finite"),
        (r'{"a": "\ud800"}', "a character that no text can hold"),
        (r'{"\u0000": 1}', "a key with a character that no text can hold"),
        ('{\n"a": 1,,}', "line 2 is not valid JSON"),
    ],
    ids=lambda text: text[:24],
)
def test_json_of_another_kind_is_a_sentence(text, problem):
    with pytest.raises(InputError, match=problem):
        parse_json(text, "file.json")


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"\x80\x81", "line 1 is not text in UTF-8"),
        (b"a: 1\nb: \xff\n", "line 2 is not text in UTF-8"),
        ("a: 1".encode("utf-16"), "line 1 is not text in UTF-8"),
        ("a: 1".encode("utf-16-le"), "line 1 is not text: it contains a zero byte"),
    ],
)
@pytest.mark.parametrize("read", [read_text, read_yaml, read_json, read_json_lines])
def test_what_is_no_utf8_text_names_its_line(tmp_path, read, content, problem):
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"a: {problem}"):
        read(path)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"a": 1}')
    assert read_json(path) == read_yaml(path) == {"a": 1}
    assert read_json_lines(path) == [{"a": 1}]


def test_more_than_the_limit_is_not_even_read(tmp_path):
    path = tmp_path / "a"
    with path.open("wb") as file:
        file.truncate(10**12)  # takes no space on the disk
    for read in (read_text, read_yaml, read_json, read_json_lines):
        with pytest.raises(InputError, match=r"a: longer than \d+ [MK]iB"):
            read(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_only_regular_files_are_opened(tmp_path):
    pipe, loop = tmp_path / "pipe.bin", tmp_path / "loop"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    from lidistill.data.point_files import read_bin

    for read in (read_text, read_yaml, read_json, read_json_lines, read_bin):
        for path in (pipe, tmp_path, "/dev/zero", loop, tmp_path / "pipe.bin" / "below", tmp_path / ("n" * 300)):
            with pytest.raises(InputError, match="not a regular file|a folder, not a file|cannot be read"):
                read(path)
        with pytest.raises(InputError, match="not a valid path"):
            read("zero\0byte")


def test_a_missing_file_can_be_told_from_others(tmp_path):
    with pytest.raises(MissingFile, match="none: missing; look again"), opened(tmp_path / "none", "look again"):
        pass


@pytest.mark.parametrize(
    "line, problem",
    [
        ("[1]", "line 2 holds no JSON object"),
        ("5", "line 2 holds no JSON object"),
        ("{", "line 2 is not valid JSON"),
        ('{"step": -1}', "step -1"),
        ('{"step": "one"}', "step 'one'"),
        ('{"step": 1e300}', "step 1e"),
        ('{"step": true}', "step True"),
        ('{"kind": "train"}', "step None"),
        ('{"step": 1, "kind": 3}', "'kind' is 3"),
        ('{"step": 1, "loss": "low"}', "'loss' is 'low'"),
        ('{"step": 1, "loss": {}}', "'loss' is {}"),
    ],
)
def test_a_log_row_of_another_kind_is_named(tmp_path, line, problem):
    folder = RunFolder(tmp_path)
    folder.log.write_text(
        '{"step": 1, "kind": "train", "loss": null}\n' + line + "\n" + '{"step": 2, "kind": "train"}\n'
    )
    with pytest.raises(InputError, match=r"log.jsonl: .*") as caught:
        folder.read_log()
    assert problem in str(caught.value)


def test_an_override_is_read_with_the_same_care():
    for value in ("[" * 5000, "&a [*a]", "9" * 5000, "{1: 2}", '"\\ud800"'):
        with pytest.raises(InputError, match="override .*training.steps="):
            apply_overrides({"training": {}}, [f"training.steps={value}"])


def test_random_bytes_and_random_changes_end_in_content_or_a_sentence(tmp_path):
    rng = np.random.default_rng(0)
    seeds = [
        DOUBLING.encode(),
        b'{"step": 1, "kind": "train", "a": [1, 2.5, null, "x"]}\n' * 3,
        b"a: {b: [1, &x 2, *x], 'c': !!str 3, ? d : |\n  text\n}\n",
    ]
    path = tmp_path / "a"
    for row in range(300):
        content = bytearray(seeds[row % len(seeds)] if row % 4 else rng.bytes(200))
        for _ in range(int(rng.integers(1, 6))):
            content[int(rng.integers(len(content)))] = int(rng.integers(256))
        path.write_bytes(bytes(content))
        for read in (read_text, read_yaml, read_json, read_json_lines):
            try:
                read(path)
            except InputError as error:
                assert str(error).startswith(str(path))
