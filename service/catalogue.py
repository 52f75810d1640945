"""The models that are served, by `name` and by `name@version`, and how they change while they serve.

A version that appears in the folder is verified, opened and proved beside the one that serves, then takes its place
in one step; the old one answers what it had taken and closes. A bad one is refused, and nothing else happens.
It knows nothing of HTTP.
"""

import asyncio
import ctypes
import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from service.bundle.engines import Engine
from service.bundle.errors import BundleError, MissingFile, UnexpectedFile
from service.bundle.manifest import Manifest, Role
from service.bundle.runtime import EngineOptions, OpenBundle, open_bundle
from service.bundle.store import BundlePath, check_place, find_bundles, read_manifest
from service.host.cores import cores
from service.host.priority import giving_way
from service.pairs import Pair, find_pair, obstacle
from service.predictors import Predictor
from service.settings import SettingProblem, Settings
from service.telemetry.metrics import Metrics

logger = logging.getLogger("understudy")


class NoSuchModel(Exception):
    """No model of that name or version; the message lists those that there are."""


class StillNeeded(Exception):
    """The model may not be unloaded."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a look at the folder led to."""

    opened: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()  # one line each


class Shelf:
    """The predictors of one moment. Never changed, so a request sees one state however the catalogue moves on."""

    def __init__(self, predictors: Iterable[Predictor], default: str, teacher: str | None = None) -> None:
        """`teacher` is preferred to others where it fits."""
        self._teacher = teacher
        self._pairs: dict[str, Pair | None] = {}  # by the student's seal
        self.predictors = tuple(sorted(predictors, key=_order))
        # The newest version of a name comes last, and so is what the name alone means.
        self._by_name = {predictor.manifest.name: predictor for predictor in self.predictors}
        self._by_name |= {predictor.name: predictor for predictor in self.predictors}
        self.default = self._by_name[default]

    def resolve(self, name: str | None, version: str | None = None) -> Predictor:
        """The model of that name, its newest version unless one is named; the default one for None."""
        if name is None and version is None:
            return self.default
        key = self.default.manifest.name if name is None else name
        try:
            return self._by_name[key if version is None else f"{key}@{version}"]
        except KeyError:
            raise NoSuchModel(f"no such model; there are {', '.join(sorted(self._by_name))}") from None

    def pair_of(self, student: Predictor) -> Pair | None:
        """Its teacher here, also of one that has left; None where none fits."""
        seal = student.manifest.seal
        if seal not in self._pairs:
            self._pairs[seal] = find_pair(student, self.predictors, self._teacher)
        return self._pairs[seal]

    def of(self, name: str) -> list[Predictor]:
        """All served versions of a model, the newest last."""
        return [predictor for predictor in self.predictors if predictor.manifest.name == name]


class Catalogue:
    """The shelf of now, and the folder that it follows. It is built in any thread, then belongs to one event loop."""

    def __init__(
        self, settings: Settings, metrics: Metrics, unloaded: Iterable[str] = (), default: str | None = None
    ) -> None:
        """`unloaded` are left alone until they are loaded; for `default` see `choose_default`."""
        self._settings = settings
        self._metrics = metrics
        self._changing = asyncio.Lock()
        self._unloaded = set(unloaded)
        self._refused: dict[Path, _Fingerprint] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._said = ""
        places = _by_name(place for place in find_bundles(settings.models) if place.name not in self._unloaded)
        manifests = [_newest_manifest(found) for found in places.values()]
        self._default = choose_default(settings, manifests, default)
        found = self._open_newest(places, {}, again=True)
        for versions in found.values():
            if versions.problem is not None and not versions.predictors:
                raise versions.problem
        _log_refusals(found.values())
        opened = chain.from_iterable(versions.predictors for versions in found.values())
        self.shelf = Shelf(opened, self._default, settings.teacher)
        self._require_teachers()

    @property
    def predictors(self) -> tuple[Predictor, ...]:
        """All that answer now."""
        return self.shelf.predictors

    @property
    def default(self) -> Predictor:
        """The model that answers when none is named."""
        return self.shelf.default

    def resolve(self, name: str | None, version: str | None = None) -> Predictor:
        """The model of that name. Raises NoSuchModel."""
        return self.shelf.resolve(name, version)

    @property
    def dead(self) -> list[str]:
        """Models whose workers do not run."""
        return [predictor.name for predictor in self.predictors if not predictor.alive]

    async def refresh(self) -> Change:
        """Look at the folder and follow it. What was refused is tried again when it has changed."""
        async with self._changing:
            return await self._follow()

    async def load(self, name: str, elsewhere: bool = False) -> Change:
        """Serve the newest version of a model, also after `unload`. Raises NoSuchModel; see `Change.refused`.

        `elsewhere`: another worker serves it now, so it is followed here whatever comes of this try.
        """
        async with self._changing:
            unloaded = name in self._unloaded
            self._unloaded.discard(name)
            change = await self._follow(only=name)
            if not self.shelf.of(name):
                if unloaded and not elsewhere:
                    self._unloaded.add(name)
                if not change.refused:
                    raise NoSuchModel("no bundle of that name lies in the folder of models")
            return change

    async def unload(self, name: str, elsewhere: bool = False) -> Change:
        """Stop serving a model until it is loaded again. Raises NoSuchModel or StillNeeded.

        `elsewhere`: another worker served it, so it is kept away from here too, even if it had not come yet.
        """
        async with self._changing:
            leaving = self.shelf.of(name)
            if not leaving and not elsewhere:
                raise NoSuchModel("no model of that name is served")
            if self.default in leaving:
                raise StillNeeded(f"{name} answers when no model is named; start with another --default to unload it")
            self._unloaded.add(name)
            return self._put([predictor for predictor in self.predictors if predictor not in leaving])

    async def close(self, patience_s: float) -> None:
        """Close all predictors at the same time."""
        await asyncio.gather(*(predictor.close(patience_s) for predictor in self.predictors), *self._leaving)

    async def _follow(self, only: str | None = None) -> Change:
        serving = {predictor.name: predictor for predictor in self.predictors}
        try:
            places = _by_name(await asyncio.to_thread(find_bundles, self._settings.models))
            places = {name: places[name] for name in places if name not in self._unloaded and only in (None, name)}
            found = await asyncio.to_thread(self._open_newest, places, serving, again=only is not None)
        except (BundleError, OSError) as error:
            if str(error) != self._said:  # said once, however often we look
                self._said = str(error)
                logger.error("the folder of models is not followed: %s", error)
            return Change(refused=(str(error),))
        _log_refusals(found.values())
        # A model that has no good version in the folder any more goes on with the one that it has.
        lost = {name for name, versions in found.items() if not versions.predictors}
        lost |= {predictor.manifest.name for predictor in self.predictors} - set(found)
        kept = [predictor for predictor in self.predictors if predictor.manifest.name in lost]
        kept += chain.from_iterable(versions.predictors for versions in found.values())
        if not any(self._default in (predictor.name, predictor.manifest.name) for predictor in kept):
            kept.append(self.default)  # it was named with its version, whose folder has gone
        return self._put(kept, tuple(str(versions.problem) for versions in found.values() if versions.problem))

    def _put(self, predictors: Sequence[Predictor], refused: tuple[str, ...] = ()) -> Change:
        """The swap: one assignment. What leaves answers what it had taken, then closes."""
        before, self.shelf = self.shelf, Shelf(predictors, self._default, self._settings.teacher)
        opened = [predictor for predictor in predictors if predictor not in before.predictors]
        retired = [predictor for predictor in before.predictors if predictor not in predictors]
        for predictor in retired:
            task = asyncio.get_running_loop().create_task(self._retire(predictor))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        change = Change(_names(opened), _names(retired), refused)
        if opened or retired:
            logger.warning("now serving %s", ", ".join(_names(self.predictors)))
            self._tell_of_obstacles()
        return change

    async def _retire(self, predictor: Predictor) -> None:
        await predictor.close(self._settings.drain_seconds)
        del predictor  # the last reference, once nobody waits for its answers
        async with self._changing:  # so that one thread is enough for all that is done aside
            await asyncio.to_thread(_give_memory_back)

    def _open_newest(
        self, places: Mapping[str, Sequence[BundlePath]], serving: Mapping[str, Predictor], again: bool
    ) -> dict[str, "_Versions"]:
        """In any thread: of each name the newest versions that open; those that serve are not opened anew."""
        if serving:  # one by one, to leave the cores to requests, and since a new thread keeps memory of its own
            return {name: self._open_versions(found, serving, again) for name, found in places.items()}
        with ThreadPoolExecutor(max_workers=max(1, len(places)), thread_name_prefix="open") as threads:
            opened = threads.map(lambda found: self._open_versions(found, serving, again), places.values())
            return dict(zip(places, opened, strict=True))

    def _open_versions(
        self, places: Sequence[BundlePath], serving: Mapping[str, Predictor], again: bool
    ) -> "_Versions":
        versions = _Versions([])
        for place in reversed(places):
            full = f"{place.name}@{place.version}"
            if len(versions.predictors) >= self._settings.versions and full != self._default:
                continue
            try:
                if full in serving:
                    versions.predictors.append(serving[full])
                elif again or self._refused.get(place.folder) != _fingerprint(place.folder):
                    versions.predictors.append(self._open(place))
            except (BundleError, OSError) as error:
                versions.problem = versions.problem or error
        return versions

    def _open(self, place: BundlePath) -> Predictor:
        seen = _fingerprint(place.folder)  # before: a file that comes while we read makes it worth another try
        open_it = partial(open_place, place, self._settings)
        try:
            # The threads that run a teacher start with its session, and are as nice as the thread that opens it.
            teacher = _manifest(place).role is Role.TEACHER
            bundle = giving_way(self._settings.teacher_nice, open_it) if teacher else open_it()
        except (BundleError, OSError):
            self._refused[place.folder] = seen
            self._metrics.loads_refused.inc()
            raise
        self._refused.pop(place.folder, None)
        self._metrics.loads_done.inc()
        _tell_of_engine(bundle)
        return Predictor(bundle, self._settings, self._metrics)

    def _require_teachers(self) -> None:
        """At the start what the settings ask for must be there; later, versions come and go. Raises SettingProblem."""
        settings, default = self._settings, self.shelf.default
        if settings.teacher is not None:
            teachers = [each for each in self.predictors if each.manifest.role is Role.TEACHER]
            if not any(settings.teacher in (each.name, each.manifest.name) for each in teachers):
                there = ", ".join(_names(teachers)) or "none"
                raise SettingProblem(f"teacher: no teacher {settings.teacher} is served; there is {there}")
        problem = self._obstacle(default)
        if problem is not None:
            raise SettingProblem(f"strategy {settings.strategy}: {problem}")
        self._tell_of_obstacles()

    def _obstacle(self, model: Predictor) -> str | None:
        settings = self._settings
        return obstacle(model, self.shelf.pair_of(model), settings.strategy, settings.cascade_threshold)

    def _tell_of_obstacles(self) -> None:
        for problem in filter(None, map(self._obstacle, self.predictors)):
            logger.warning("strategy %s: %s", self._settings.strategy, problem)


def _tell_of_engine(bundle: OpenBundle) -> None:
    manifest, chosen = bundle.manifest, bundle.chosen
    level = logging.WARNING if chosen.failed else logging.INFO
    logger.log(level, "%s@%s runs by %s: %s", manifest.name, manifest.version, chosen, chosen.reason)


def _give_memory_back() -> None:
    """The C library keeps what a closed model held, and the next one seldom fits into the holes."""
    with suppress(OSError, AttributeError):  # it is not glibc
        ctypes.CDLL(None).malloc_trim(0)


def open_place(place: BundlePath, settings: Settings) -> OpenBundle:
    """Verify, open and prove one bundle, as the settings say."""
    manifest = _manifest(place)
    check_place(place.folder, manifest)
    share = max(1, cores() // settings.workers)
    student = manifest.role is Role.STUDENT
    threads = settings.student_threads if student else settings.teacher_threads or share
    engine = settings.engine if student or settings.engine is not Engine.NATIVE else Engine.AUTO  # it has no teachers
    options = EngineOptions(threads=threads, device=settings.device, engine=engine, isa=settings.isa)
    return open_bundle(place.folder, settings.precision, options)


def newest_bundles(models: Path) -> dict[str, BundlePath]:
    """Name -> its newest version."""
    return {name: places[-1] for name, places in _by_name(find_bundles(models)).items()}


def choose_default(settings: Settings, newest: Sequence[Manifest], chosen: str | None = None) -> str:
    """The model that answers when none is named: the wanted one, the one that other workers have chosen, or the first
    student. Raises NoSuchModel.
    """
    if not newest:
        raise MissingFile(f"{settings.models}: no bundles; publish one there, or name another folder with --models")
    wanted = settings.default
    names = [manifest.name for manifest in newest]
    if wanted is None:
        if chosen in names:
            return chosen
        return next((manifest.name for manifest in newest if manifest.role is Role.STUDENT), names[0])
    name, _, version = wanted.partition("@")
    if name not in names or (version and not (settings.models / name / version).is_dir()):
        raise NoSuchModel(f"{settings.models}: no model {wanted}; there are {', '.join(sorted(names))}")
    return wanted


_Fingerprint = tuple[tuple[str, int, int], ...]


@dataclass(slots=True)
class _Versions:
    """What became of the newest versions of one model."""

    predictors: list[Predictor]
    problem: BundleError | OSError | None = None


def _log_refusals(found: Iterable[_Versions]) -> None:
    for versions in found:
        if versions.problem is not None:
            logger.error("refused, and the version before goes on: %s", versions.problem)


def _manifest(place: BundlePath) -> Manifest:
    if place.folder.is_symlink():  # not even its manifest is read from elsewhere
        raise UnexpectedFile(f"{place.folder}: a link; copy the bundle itself to its place")
    return read_manifest(place.folder)


def _newest_manifest(places: Sequence[BundlePath]) -> Manifest:
    """Of the newest version that has one that can be read. Raises what is wrong with the newest if none has."""
    problem: BundleError | None = None
    for place in reversed(places):
        try:
            return _manifest(place)
        except BundleError as error:
            problem = problem or error
    assert problem is not None  # a name without versions is not in the folder's list
    raise problem


def _fingerprint(folder: Path) -> _Fingerprint:
    """Changes when a file comes, goes, grows or is written again."""
    entries = [folder] if folder.is_symlink() else folder.iterdir()
    found = [(entry.name, entry.lstat()) for entry in entries]
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in found))


def _by_name(places: Iterable[BundlePath]) -> dict[str, list[BundlePath]]:
    """Name -> its versions, the newest last."""
    found: dict[str, list[BundlePath]] = {}
    for place in places:
        found.setdefault(place.name, []).append(place)
    return found


def _order(predictor: Predictor) -> tuple[str, int]:
    return predictor.manifest.name, int(predictor.manifest.version)


def _names(predictors: Iterable[Predictor]) -> tuple[str, ...]:
    return tuple(predictor.name for predictor in predictors)
