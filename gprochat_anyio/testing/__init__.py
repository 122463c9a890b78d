"""Testing kit for programs that use this library, and for the library itself.

Scripted sites, which speak GPROChat's, OpenAI's and Gemini's APIs:

- `scripted_site`: in memory, without sockets or tasks, and compatible with an autojump clock
- `live_site`: the same on 127.0.0.1, for other processes and other clients
- `Say`, `Pause`, `Stop`, `Hang`, `Drop`, `Refuse`, `Fail`, `Raw`: the steps of their replies
- `record` and `replay`: record exchanges with a real site in files, and replay them in memory

Checks of a program's behaviour:

- `forbid_network` and `allow_network`: prevent accidental network connections
- `no_leaks`: check that no task, socket or connection slot is left
- `at_every_checkpoint` and `cancelled`: cancel an operation at each of its suspensions in turn

The pytest plugin provides the fixtures `gprochat_site` and `live_gprochat_site` and the option
`--gprochat-forbid-network`. No extra is required.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._forbid import NetworkForbiddenError as NetworkForbiddenError
    from ._forbid import allow_network as allow_network
    from ._forbid import forbid_network as forbid_network
    from ._injection import Cancelling as Cancelling
    from ._injection import Injection as Injection
    from ._injection import at_every_checkpoint as at_every_checkpoint
    from ._injection import cancelled as cancelled
    from ._injection import injections as injections
    from ._leaks import no_leaks as no_leaks
    from ._live_site import live_site as live_site
    from ._record import record as record
    from ._replay import replay as replay
    from ._requests import Request as Request
    from ._requests import Turn as Turn
    from ._scripted_site import MemorySite as MemorySite
    from ._scripted_site import Reply as Reply
    from ._scripted_site import ScriptedSite as ScriptedSite
    from ._scripted_site import scripted_site as scripted_site
    from ._steps import Drop as Drop
    from ._steps import Fail as Fail
    from ._steps import Hang as Hang
    from ._steps import Hold as Hold
    from ._steps import Pause as Pause
    from ._steps import Raw as Raw
    from ._steps import Refuse as Refuse
    from ._steps import Say as Say
    from ._steps import Script as Script
    from ._steps import Step as Step
    from ._steps import Stop as Stop
    from ._transcripts import Transcript as Transcript

_PLACES = {
    "_forbid": "NetworkForbiddenError allow_network forbid_network",
    "_injection": "Cancelling Injection at_every_checkpoint cancelled injections",
    "_leaks": "no_leaks",
    "_live_site": "live_site",
    "_record": "record",
    "_replay": "replay",
    "_requests": "Request Turn",
    "_scripted_site": "MemorySite Reply ScriptedSite scripted_site",
    "_steps": "Drop Fail Hang Hold Pause Raw Refuse Say Script Step Stop",
    "_transcripts": "Transcript",
}
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names.split()}

__all__ = [*_PLACE_OF]  # noqa: PLE0604 # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    # Imported on first use, because pytest imports this package for the plugin at every start.
    if name in _PLACE_OF:
        from importlib import import_module  # noqa: PLC0415

        return getattr(import_module(f"{__name__}.{_PLACE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACE_OF})
