from lidistill.report.measures.provenance_table import provenance_table


def test_provenance_names_what_every_figure_needs(runs):
    table = provenance_table(runs)
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["Dataset"] == ("simulated",) * 3
    assert rows["Split"] == ("val",) * 3
    assert rows["Frames"] == ("30",) * 3
    assert rows["Metric"] == ("kitti",) * 3
    assert rows["Commit"] == ("0123456789ab",) * 3
    assert rows["Distillation"] == ("n/a", "n/a", "pointdistiller, logits")
    assert "torch 2.13.0" in rows["Versions"][0]
    assert (
        rows["Overlap"][0]
        == "strict: Car 0.7, Pedestrian 0.5, Cyclist 0.5; loose: Car 0.5, Pedestrian 0.25, Cyclist 0.25"
    )
