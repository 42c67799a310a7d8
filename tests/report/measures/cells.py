"""What stands in a table, by the names of its columns."""

from lidistill.report.page_blocks import Table


def cells(table: Table, **wanted: str) -> list[dict[str, str]]:
    """Rows by column name, of those whose cells are as wanted."""
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]
