"""What surrounds a sweep without influence on its results: machines, records and artifacts."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from methods.errors import SettingsError
from orchestrator.specification import addresses
from tracking.database_url import named_by, sqlite_url
from tracking.private_files import open_to_others
from workers.settings import Count, CountOrNone, Settings

#: Validation context that also checks what depends on this machine.
CHECK: Final = {"check": True}
#: The same for a sweep that will run elsewhere: files and variables are looked for there.
ELSEWHERE: Final = {"check": True, "elsewhere": True}

_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
#: ``scheme://user:SECRET@host``, and ``?password=SECRET``.
_SECRET: Final = re.compile(
    r"://[^:@/?#]*:(.+)@|[?&][^=&]*(?:password|secret|token|key)[^=&]*=([^&#]+)", re.IGNORECASE
)
_MLFLOW_OFF: Final = "off"
_MOST_GPUS: Final = 1024  #: Of one worker.
_LONGEST_S: Final = 1e9  #: Thirty years.


def checking(info: ValidationInfo) -> bool:
    """Say whether a specification is about to be run, not only read."""
    return bool(info.context and info.context.get("check"))


def checking_here(info: ValidationInfo) -> bool:
    """Say whether what must be on the machine of the sweep must be on this one."""
    return checking(info) and not (info.context and info.context.get("elsewhere"))


def _expand(text: str) -> str:
    """Put the values of environment variables in place of ``${NAME}``."""
    return _VARIABLE.sub(lambda match: os.environ[match[1]], text)


def has_password(text: str) -> bool:
    """Say whether an address has a password, or another secret, written out in it."""
    secrets = [secret for match in _SECRET.finditer(text) for secret in match.groups() if secret]
    return not all(_VARIABLE.fullmatch(secret) for secret in secrets)


def _url_in_order(text: str, info: ValidationInfo) -> str:
    """Refuse passwords in the text itself, and variables that are not set; never shows ``text``."""
    if "${" in _VARIABLE.sub("", text):
        raise ValueError("has a '${' that is not an environment variable; write ${NAME}")
    if has_password(text):
        raise ValueError(
            "has a password in it, which would be stored; put the password, or the whole address, "
            "into an environment variable and write ${NAME} here"
        )
    if checking_here(info):
        missing = [name for name in _VARIABLE.findall(text) if name not in os.environ]
        if missing:
            raise ValueError(f"environment variable {missing[0]} is not set; export it first")
    return text


Address = Annotated[str, Field(min_length=1), AfterValidator(_url_in_order)]


def _gpu_share(value: Any) -> Any:
    if value == "auto":
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"is {value!r}; it must be 'auto' or a number")
    if not (0 <= value <= 1 or (value <= _MOST_GPUS and value % 1 == 0)):
        shown = str(value)[:20]
        rule = f"it must be a share from 0 to 1, or a whole number up to {_MOST_GPUS}"
        raise ValueError(f"is {shown}; {rule}")
    return value


class ResourceSettings(Settings):
    """What trials run on; without influence on their results."""

    workers: Count = 2  #: Trials at a time.
    cpus_per_worker: Annotated[float, Field(gt=0.0, le=10_000.0)] = 1.0
    #: Of each worker, as a share of a GPU or in whole ones; auto: what trials turn out to need.
    gpu_share: Annotated[float | Literal["auto"], BeforeValidator(_gpu_share)] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    #: None: this machine.
    address: Annotated[str, AfterValidator(addresses.check_cluster)] | None = None

    @model_validator(mode="after")
    def _device_and_share_agree(self) -> Self:
        share = self.gpu_share
        if self.device == "cpu" and share != "auto" and share > 0:
            raise ValueError(f"device is cpu, but gpu_share is {share:g}; leave one out")
        if self.device == "cuda" and share == 0:
            raise ValueError("device is cuda, but gpu_share is 0; leave one out")
        return self


class RecoverySettings(Settings):
    """What is done about machines that die and trials that go wrong; changes no result."""

    checkpoint_epochs: CountOrNone = 1  #: Between two checkpoints; 0: none.
    #: A trial that is silent for longer is taken for hung.
    hung_after_s: Annotated[float, Field(gt=0.0, le=_LONGEST_S)] = 3600.0
    failures_per_arm: CountOrNone = 5  #: First ones alike that end it; 0: never.
    #: How long a ledger on a server may be away; 0: not at all.
    ledger_outage_s: Annotated[float, Field(ge=0.0, le=_LONGEST_S)] = 600.0
    #: How long trials wait for an artifact store that is away; 0: not at all.
    store_outage_s: Annotated[float, Field(ge=0.0, le=_LONGEST_S)] = 600.0


class TrackingSettings(Settings):
    """Where records and artifacts go. ``${NAME}`` is read from the environment when it is used."""

    model_config = ConfigDict(hide_input_in_errors=True)

    store: Address = "./prunesweep-data"  #: Folder of what has no address of its own.
    ledger: Address | None = None  #: None: ``ledger.db``, SQLite, in the store.
    mlflow: Address | None = None  #: None: ``mlflow.db``, SQLite, in the store; ``off``: no mirror.
    artifacts: Address | None = None  #: Folder or URL; None: ``artifacts`` in the store.
    publish_weights: bool = False  #: Also upload pruned weights to MLflow.
    #: winners: once a sweep has ended, only weights that tables report; see `tracking.retention`.
    keep_weights: Literal["all", "winners"] = "all"

    @field_validator("ledger")
    @classmethod
    def _ledger_is_sql(cls, text: str | None, info: ValidationInfo) -> str | None:
        _scheme_in(text, info, "sqlite", "postgresql", "postgresql+psycopg")
        _in_form(text, info, addresses.check_database)
        return text

    @field_validator("mlflow")
    @classmethod
    def _mlflow_is_known(cls, text: str | None, info: ValidationInfo) -> str | None:
        schemes = ("http", "https", "sqlite", "postgresql", "postgresql+psycopg")
        _scheme_in(text, info, *schemes, instead=_MLFLOW_OFF)
        if text != _MLFLOW_OFF:
            _in_form(text, info, _check_mlflow)
        return text

    @field_validator("store")
    @classmethod
    def _store_is_a_folder(cls, text: str, info: ValidationInfo) -> str:
        _in_form(text, info, addresses.check_store)
        return text

    @field_validator("artifacts")
    @classmethod
    def _artifacts_can_be_written(cls, text: str | None, info: ValidationInfo) -> str | None:
        _in_form(text, info, addresses.check_artifacts)
        if checking_here(info):
            _in_form(text, info, addresses.check_package)
        return text

    @property
    def folder(self) -> Path:
        """The store, absolute."""
        return Path(os.path.expanduser(_expand(self.store))).absolute()

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger; may hold a password: not to be shown or stored."""
        return _expand(self.ledger) if self.ledger else sqlite_url(self.folder / "ledger.db")

    @property
    def mlflow_url(self) -> str | None:
        """Tracking URI of MLflow, None for no mirror; may hold a password."""
        url = _expand(self.mlflow) if self.mlflow else sqlite_url(self.folder / "mlflow.db")
        return None if url == _MLFLOW_OFF else url

    @property
    def artifacts_url(self) -> str:
        """Folder or fsspec URL of the artifacts; may hold a password."""
        return _expand(self.artifacts) if self.artifacts else str(self.folder / "artifacts")


def variables_in(tracking: TrackingSettings) -> tuple[str, ...]:
    """Return the names of the environment variables that addresses are put together from."""
    texts = [str(text) for text in tracking.model_dump().values()]
    return tuple(sorted({name for text in texts for name in _VARIABLE.findall(text)}))


def secret_variables(tracking: TrackingSettings) -> frozenset[str]:
    """Return the names of the environment variables that hold passwords of addresses."""
    texts = [str(text) for text in tracking.model_dump().values()]
    secrets = [
        group or "" for text in texts for m in _SECRET.finditer(text) for group in m.groups()
    ]
    named = {name for secret in secrets for name in _VARIABLE.findall(secret)}
    whole = {name for text in texts for name in _VARIABLE.findall(text)}
    return frozenset(named | {name for name in whole if has_password(os.environ.get(name, ""))})


def _scheme_in(
    text: str | None, info: ValidationInfo, *schemes: str, instead: str | None = None
) -> None:
    """Refuse an address of another scheme; of a variable's value, where the sweep is to run."""
    is_variable = text is not None and _VARIABLE.match(text) is not None
    if text is None or (is_variable and not checking_here(info)):
        return
    address = _expand(text) if is_variable else text
    if address == instead or address.partition("://")[0] in schemes:
        return
    rule = f"must be an address that begins with {' or '.join(schemes)} and ://"
    other = f", or {instead!r}" if instead else ""
    raise ValueError(f"{rule}{other}" + (f"; what {text} holds does not" if is_variable else ""))


def _in_form(text: str | None, info: ValidationInfo, check: Callable[[str], None]) -> None:
    """Check the form of an address, with its variables where the sweep is to run."""
    if text is None or not checking(info) or (_VARIABLE.search(text) and not checking_here(info)):
        return
    check(_expand(text))


def _check_mlflow(text: str) -> None:
    if text == _MLFLOW_OFF:  # from a variable
        return
    is_web = text.startswith(("http://", "https://"))
    (addresses.check_server if is_web else addresses.check_database)(text)


def check_places(tracking: TrackingSettings) -> None:
    """See that everything can be written that a sweep writes on this machine; makes nothing.

    Raises:
        SettingsError: Something cannot, by the setting that names it.
    """
    ledger = _sqlite_path(tracking.ledger_url)
    mlflow = _sqlite_path(tracking.mlflow_url)
    artifacts = addresses.local_path(tracking.artifacts_url)
    if (
        ledger is not None
        and mlflow is not None
        and os.path.realpath(ledger) == os.path.realpath(mlflow)
    ):
        problem = "names the SQLite file that MLflow has; each needs one of its own"
        raise SettingsError("tracking", "ledger", problem)
    if tracking.artifacts_url.startswith("memory://"):
        problem = "is in the memory of one process, and ends with it; name a folder or an address"
        raise SettingsError("tracking", "artifacts", problem)
    for setting, path, check in (
        ("store", str(tracking.folder), addresses.check_folder_here),
        ("ledger", ledger, addresses.check_database_here),
        ("mlflow", mlflow, addresses.check_database_here),
        ("artifacts", artifacts, addresses.check_folder_here),
    ):
        if path is not None:
            try:
                check(path)
            except ValueError as error:
                raise SettingsError("tracking", setting, str(error)) from None


def told_if_open(tracking: TrackingSettings) -> str | None:
    """Say which of the places that are there others on this machine can read; None: none of them.

    Whoever made them may have meant it, so they stay as they are.
    """
    places = (
        str(tracking.folder),
        _sqlite_path(tracking.ledger_url),
        _sqlite_path(tracking.mlflow_url),
        addresses.local_path(tracking.artifacts_url),
    )
    modes = {path: open_to_others(Path(path)) for path in places if path is not None}
    found = [f"{path} ({mode})" for path, mode in modes.items() if mode]
    if not found:
        return None
    return f"Others on this machine can read {', '.join(found)}; chmod -R go-rwx closes that."


def _sqlite_path(url: str | None) -> str | None:
    is_web = url is None or url.startswith(("http://", "https://"))
    file = None if is_web else named_by(str(url)).file
    return None if file is None else str(file)
