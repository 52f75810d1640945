"""The proof of the swaps: that its checker sees each thing that may be wrong, and a small run of each part."""

import asyncio
import gc
import json
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from weakref import ref

import pytest

from service.bench.process import PROC, Usage
from service.bench.samples import Failure
from service.bundle.errors import BundleError
from service.bundle.runtime import open_bundle
from service.settings import Settings
from tests.prove.activating import Killed, Kills, judge, kill_again_and_again
from tests.prove.bait import Bait
from tests.prove.bounds import Bound
from tests.prove.defects import DEFECTS, CannotSpoil, Scene, Spoil, linked_folder, no_manifest
from tests.prove.editions import Edition, Press, told_apart
from tests.prove.history import TOLERANCE, Asked, Fault, Published, Verdict, check
from tests.prove.swapping import Outcome, Place, Refusals, Swaps, swap_again_and_again, tempt_again_and_again
from tests.prove.swaps import bounds_of_kills, bounds_of_refusals, bounds_of_swaps
from tests.running import PATIENCE_S, ROOT, opened

ANSWERS = {1: ((0.1, 0.9), (0.5, 0.5)), 2: ((0.2, 0.8), (0.6, 0.4)), 3: ((0.3, 0.7), (0.7, 0.3))}
DIGESTS = {version: str(version) * 64 for version in ANSWERS}
PUBLISHED = (Published(1, DIGESTS[1], 0, 0), Published(2, DIGESTS[2], 10, 12), Published(3, DIGESTS[3], 20))


def asked(sent: float, received: float, version: int, text: int = 0) -> Asked:
    return Asked(sent, received, text, 200, version, ANSWERS[version][text], DIGESTS[version][:12])


GOOD = (
    asked(1, 2, 1),
    asked(9, 11, 1),  # under way while 2 came
    asked(9, 11, 2, text=1),  # and so was this
    asked(13, 14, 2),
    asked(19, 21, 2),
    asked(19, 21, 3),
    asked(20, 29, 2),  # it had been taken before anyone knew of 3
    asked(22, 23, 3, text=1),
)


def judged(*more: Asked) -> Verdict:
    return check([*GOOD, *more], PUBLISHED, ANSWERS)


def test_a_good_history_is_good() -> None:
    verdict = judged()
    assert verdict == Verdict(requests=len(GOOD), identical=len(GOOD), versions=3)


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (Asked(1, 2, 0, 503), Fault.FAILED),
        (Asked(1, 2, 0, Failure.LOST), Fault.FAILED),
        (replace(asked(30, 31, 3), version=4), Fault.FOREIGN),
        (asked(1, 2, 2), Fault.EARLY),
        (replace(asked(30, 31, 3), digest=DIGESTS[2][:12]), Fault.MISNAMED),
        (replace(asked(30, 31, 3), digest=""), Fault.MISNAMED),
        (replace(asked(30, 31, 3), digest=DIGESTS[3]), Fault.MISNAMED),  # another length than the others'
        (asked(12.5, 14, 1), Fault.STALE),  # 2 had been acknowledged
        (asked(21.5, 24, 2), Fault.STALE),  # 3 had answered somebody
        (asked(11.5, 11.6, 1), Fault.STALE),  # so had 2, before it was acknowledged
        (replace(asked(30, 31, 3), scores=ANSWERS[2][0]), Fault.WRONG),
        (replace(asked(30, 31, 3), scores=(0.3 + 1e-5, 0.7)), Fault.WRONG),
        (replace(asked(30, 31, 3), scores=(0.3, float("nan"))), Fault.WRONG),
        (replace(asked(30, 31, 3), scores=(0.3,)), Fault.WRONG),
        (replace(asked(30, 31, 3), text=1), Fault.WRONG),  # somebody else's answer
    ],
)
def test_each_fault_is_found(bad: Asked, fault: Fault) -> None:
    assert judged(bad).faults[fault] == 1
    assert len(judged(bad).shown) == sum(judged(bad).faults.values())


# --- promises

USED = Usage(cpu_s=1, rss_mib=100, threads=5, files=20)


def swaps(**changes: object) -> Swaps:
    verdict = Verdict(requests=100, versions=4)
    good = {
        "verdict": verdict, "seconds": (0.1, 0.2, 0.1), "taken_over": 3, "told_apart": 1.0, "cold": USED,
        "before": USED, "after": replace(USED, rss_mib=119), "rss_mib": (100.0,),
    }  # fmt: skip
    return Swaps(**(good | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"taken_over": 2},
        {"seconds": (0.1, 21.0)},
        {"verdict": Verdict(requests=100, versions=3)},
        {"verdict": Verdict(requests=0, versions=4)},
        {"told_apart": 0.5},
        {"after": replace(USED, rss_mib=121)},
        {"after": replace(USED, threads=6)},
        {"after": replace(USED, files=21)},
    ],
)
def test_each_promise_about_swaps_can_be_broken(changes: dict[str, object]) -> None:
    assert broken(bounds_of_swaps(swaps(), 3)) == 0
    assert broken(bounds_of_swaps(swaps(**changes), 3)) == 1


def broken(bounds: list[Bound]) -> int:
    return sum(not bound.kept for bound in bounds)


def refusals(**changes: object) -> Refusals:
    good = Outcome("huge", refused=True, discreet=True, opened=0, changed=False, said="")
    return Refusals(Verdict(requests=9), (replace(good, **changes),), {}, 0, True)  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"refused": False}, {"discreet": False}, {"opened": 1}, {"changed": True}])
def test_each_promise_about_defects_can_be_broken(changes: dict[str, object]) -> None:
    assert broken(bounds_of_refusals(refusals(), 1)) == 0
    assert broken(bounds_of_refusals(refusals(**changes), 1)) == 1
    assert broken(bounds_of_refusals(refusals(), 2)) == 1


@pytest.mark.parametrize(
    "changes", [{"ready_s": None}, {"ready_s": 99.0}, {"right_version": False}, {"wrong": 1}], ids=str
)
def test_each_promise_about_kills_can_be_broken(changes: dict[str, object]) -> None:
    good = Killed(0.1, published=True, ready_s=1.0, right_version=True, wrong=0)
    assert broken(bounds_of_kills(Kills((good,), 0.1, 0.2), 1)) == 0
    bad = replace(good, **changes)  # type: ignore[arg-type]
    assert broken(bounds_of_kills(Kills((bad,), 0.1, 0.2), 1)) == 1
    assert broken(bounds_of_kills(Kills((good,) * 20, 0.1, 0.2), 20)) == 1  # never before the rename


def test_what_answers_after_a_start_is_judged() -> None:
    due = Edition(3, Path(), ANSWERS[3], DIGESTS[3])
    right = [(3, scores) for scores in ANSWERS[3]]
    old, foreign = (2, ANSWERS[2][1]), (3, ANSWERS[2][1])
    for said, right_version, wrong in (
        (right, True, 0),
        ([right[0], old], False, 1),  # two versions at once
        ([right[0], foreign], True, 1),
        ([right[0], (3, (0.7, float("nan")))], True, 1),
        ([right[0], (0, ())], False, 1),  # no answer
    ):
        found = judge(0.1, True, 1.0, said, due)
        assert (found.right_version, found.wrong) == (right_version, wrong)


# --- the parts


@pytest.fixture
def place(toy_student: Path, tmp_path: Path) -> Place:
    return Place(tmp_path, Press(toy_student, tmp_path / "waiting", ("good", "a very dull film .", "")))


def test_editions_are_whole_bundles_that_answer_differently(place: Place) -> None:
    editions = [place.press.make(version) for version in range(1, 8)]
    assert told_apart(editions, TOLERANCE) == 1
    assert told_apart([editions[0]] * 2, TOLERANCE) == 0


def outside(folder: Path, place: Place) -> Path:
    shutil.copytree(place.press.make(0).folder, folder / "outside" / "good")
    (folder / "outside" / "secret").write_bytes(b"s" * 5000)
    return folder / "outside"


@pytest.mark.parametrize("spoil", DEFECTS, ids=lambda spoil: spoil.__name__)
def test_each_defect_is_one(place: Place, tmp_path: Path, spoil: Spoil) -> None:
    scene = Scene(place.press.make(2).folder, outside(tmp_path, place), random.Random(1))
    try:
        spoil(scene)
    except CannotSpoil as reason:
        pytest.skip(str(reason))
    if spoil.__name__ == "another_place":
        return  # a good bundle, were it not for where it lies
    with pytest.raises((BundleError, OSError)):
        open_bundle(scene.folder)


def test_the_bait_notices_who_touches_it(tmp_path: Path) -> None:
    folder = tmp_path / "bait"
    folder.mkdir()
    (folder / "secret").write_text("s")
    bait = Bait(folder)
    assert (bait.touched(), bait.changed()) == (0, False)
    bait.arm()
    (folder / "secret").read_text()
    assert not bait.watched or bait.touched()
    assert not bait.changed()
    (folder / "more").touch()
    assert bait.changed()
    bait.close()


@pytest.mark.skipif(not PROC.is_dir(), reason="this system has no /proc")
def test_a_few_swaps(place: Place) -> None:
    found = swap_again_and_again(place, 3, warm_s=0.3)
    assert [str(bound) for bound in bounds_of_swaps(found, 3) if not bound.kept] == []


def test_a_few_defects(place: Place) -> None:
    found = tempt_again_and_again(place, 5, seed=1, kinds=DEFECTS[::6])
    assert [str(bound) for bound in bounds_of_refusals(found, 5) if not bound.kept] == [], found.outcomes


def test_a_few_kills(place: Place) -> None:
    found = kill_again_and_again(place, 2, seed=1)
    assert [str(bound) for bound in bounds_of_kills(found, 2) if not bound.kept] == [], found.outcomes


def test_a_proof_that_cannot_begin_says_why_in_one_line() -> None:
    command = [sys.executable, "-m", "tests.prove.swaps", "--bundle", "no/such/folder"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: no/such/folder")
    assert len(finished.stderr.splitlines()) == 1


# --- what the proof has found


def test_a_retired_model_leaves_memory_without_the_collector(place: Place) -> None:
    """A cycle kept each until a full collection, which in `worker` is seldom, and never for those of the start."""

    async def scenario() -> None:
        async with opened(Settings(models=place.models, reload_seconds=0)) as door:
            old = ref(door.lifecycle.catalogue.default.bundle.graph)
            place.publish(place.press.make(2))
            await door.lifecycle.catalogue.refresh()
            async with asyncio.timeout(PATIENCE_S):
                while old() is not None:
                    await asyncio.sleep(0.005)

    place.publish(place.press.make(1))
    gc.disable()
    try:
        asyncio.run(scenario())
    finally:
        gc.enable()


@pytest.mark.parametrize("spoil", [no_manifest, linked_folder], ids=lambda spoil: spoil.__name__)
def test_a_start_goes_on_with_the_version_before_a_bad_manifest(place: Place, tmp_path: Path, spoil: Spoil) -> None:
    """Of the newest version the manifest was read before anything else, and the start failed with it."""

    async def scenario() -> None:
        async with opened(Settings(models=place.models, reload_seconds=0)) as door:
            assert door.lifecycle.catalogue.default.manifest.version == "1"

    place.publish(place.press.make(1))
    bad = place.press.make(2)
    elsewhere = outside(tmp_path, place)
    spoil(Scene(bad.folder, elsewhere, random.Random(1)))
    place.publish(bad)
    bait = Bait(elsewhere)
    asyncio.run(scenario())
    assert bait.touched() == 0  # a link is not followed, not even to the manifest
    bait.close()


def test_the_report_is_json(place: Place, toy_student: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    arguments = ["--bundle", str(toy_student), "--swaps", "0", "--defects", "1", "--kills", "0", "--json", str(report)]
    command = [sys.executable, "-m", "tests.prove.swaps", *arguments]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(report.read_text())["defects"]["outcomes"][0]["refused"]
