"""What can be wrong with a bundle, with a text, and with a run.

A BundleError is one line that names the file and says how to mend it:

    BundleError
    ├── MissingFile        a file or folder that must be there is not
    ├── UnexpectedFile     an extra file, a folder or a link
    ├── WrongDigest        a file is not the one that the manifest describes
    ├── UnknownFormat      the manifest is of another format than ours
    ├── BrokenSeal         the manifest is not as it was published
    ├── InvalidManifest    the manifest breaks a rule of its format
    ├── InvalidTokenizer   tokenizer.json cannot be read
    ├── GraphMismatch      the graph cannot be opened, or is not what the manifest declares
    ├── ProofFailed        the graph does not give the logits that its exporter wrote down
    ├── ProviderMissing    this machine's ONNX Runtime lacks the execution provider
    ├── EngineUnfit        the native engine is not installed, or cannot run the graph
    │   └── EngineFailed   it runs the graph, but fails its proof
    └── BundleExists       versions are immutable: nothing is ever overwritten

A TextError is about one text of a call. It holds the text's place and never the text:

    TextError
    ├── WrongKind          a single text where the model reads pairs, or a pair where it reads single texts
    ├── TextTooLong        more tokens than the model reads, and the caller does not want it cut
    └── TextUnreadable     the tokenizer failed on it

RunAborted ends a run that another thread gave up.

This module knows nothing of HTTP or exit codes.
"""


class BundleError(Exception):
    """A bundle that we refuse to open or to write."""


class MissingFile(BundleError):
    """A file or folder that must be there is not."""


class UnexpectedFile(BundleError):
    """An extra file, a folder or a link."""


class WrongDigest(BundleError):
    """A file is not the one that the manifest describes."""


class UnknownFormat(BundleError):
    """The manifest is of another format than ours."""


class BrokenSeal(BundleError):
    """The manifest is not as it was published."""


class InvalidManifest(BundleError):
    """The manifest breaks a rule of its format."""


class InvalidTokenizer(BundleError):
    """`tokenizer.json` cannot be read."""


class GraphMismatch(BundleError):
    """The graph cannot be opened, or is not what the manifest declares."""


class ProofFailed(BundleError):
    """The graph does not give the logits that its exporter wrote down."""


class ProviderMissing(BundleError):
    """This machine's ONNX Runtime lacks the execution provider."""


class EngineUnfit(BundleError):
    """The native engine is not installed, or cannot run the graph."""

    failed = False


class EngineFailed(EngineUnfit):
    """It runs the graph, but fails its proof."""

    failed = True


class BundleExists(BundleError):
    """Versions are immutable: nothing is ever overwritten."""


class TextError(Exception):
    """A text that is not turned into tokens; `place` counts from 0, and is None where nobody can tell which it was."""

    def __init__(self, problem: str, place: int | None) -> None:
        super().__init__(problem)
        self.place = place


class WrongKind(TextError):
    """A single text where the model reads pairs, or a pair where it reads single texts."""


class TextTooLong(TextError):
    """More tokens than the model reads, and the caller does not want it cut; or more parts than may be waiting."""


class TextUnreadable(TextError):
    """The tokenizer failed on it."""


class RunAborted(Exception):
    """A run that another thread gave up."""
