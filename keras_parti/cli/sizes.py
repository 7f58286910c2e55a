"""`keras-parti presets`: the table of sizes."""

from keras_parti.presets import TABLES


def presets(args):
    """Prints every named size: its parameters and where it comes from."""
    rows = [
        (model, name, f"{preset.params:,}", preset.source)
        for model, table in TABLES.items()
        for name, preset in table.items()
    ]
    rows.insert(0, ("model", "preset", "parameters", "source"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for model, name, params, source in rows:
        print(
            f"{model:{widths[0]}}  {name:{widths[1]}}  {params:>{widths[2]}}  {source}"
        )
