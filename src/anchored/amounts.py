"""Numbers as users read them."""


def amount(size: float) -> str:
    """Bytes in the unit in which they are a small number: 512 B, 85.3 MB."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
