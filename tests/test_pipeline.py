"""draft"""
from pathlib import Path
from tests.workshop import Distilled, Shop
def test_x(distilled: Distilled, adopted: Path) -> None:
    print((distilled.bundle/"README.md").read_text()); print((adopted/"README.md").read_text())
