"""How a number is written."""

import pandas as pd


def whole(value: float) -> str:
    """Rounded, and never "-0"."""
    return f"{value:.0f}".replace("-0", "0") if round(value) == 0 else f"{value:.0f}"


def mean_and_range(values: pd.Series) -> str:
    mean, least, most = (whole(value) for value in (values.mean(), values.min(), values.max()))
    return mean if least == most else f"{mean} ({least} to {most})"
