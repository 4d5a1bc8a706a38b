"""Everything that is said on the wire: the messages, the parameters and results of each method, the table of methods.

Two dialects share one connection and one set of sessions: `command/exec*` is `exec-server.v0`, `process/*` is what the
Codex exec-server speaks. These are values: they are frozen, cross the in-memory channel as they are, and import neither
trio nor I/O.

A name is loaded with its module when it is first asked for: most servers, and most commands, need few of them.
"""

TYPE_CHECKING = False  # as type checkers know it
if TYPE_CHECKING:
    from execsrv.protocol.ceilings import Ceiling as Ceiling
    from execsrv.protocol.ceilings import Ceilings as Ceilings
    from execsrv.protocol.ceilings import CeilingsAsked as CeilingsAsked
    from execsrv.protocol.ceilings import CeilingScope as CeilingScope
    from execsrv.protocol.command import Accepted as Accepted
    from execsrv.protocol.command import CommandExec as CommandExec
    from execsrv.protocol.command import CommandExited as CommandExited
    from execsrv.protocol.command import CommandId as CommandId
    from execsrv.protocol.command import CommandOutputDelta as CommandOutputDelta
    from execsrv.protocol.command import CommandWrite as CommandWrite
    from execsrv.protocol.connection import Initialize as Initialize
    from execsrv.protocol.connection import Initialized as Initialized
    from execsrv.protocol.connection import ServerShutdown as ServerShutdown
    from execsrv.protocol.file_extras import BlockChecksum as BlockChecksum
    from execsrv.protocol.file_extras import Checksum as Checksum
    from execsrv.protocol.file_extras import FileAppend as FileAppend
    from execsrv.protocol.file_extras import FileChange as FileChange
    from execsrv.protocol.file_extras import FileList as FileList
    from execsrv.protocol.file_extras import FileRename as FileRename
    from execsrv.protocol.file_extras import FileStat as FileStat
    from execsrv.protocol.file_extras import FileStatus as FileStatus
    from execsrv.protocol.file_extras import LinkCreate as LinkCreate
    from execsrv.protocol.file_extras import ListedFile as ListedFile
    from execsrv.protocol.file_extras import TreeChange as TreeChange
    from execsrv.protocol.file_extras import TreeChanges as TreeChanges
    from execsrv.protocol.file_extras import TreeWatch as TreeWatch
    from execsrv.protocol.file_extras import WatchId as WatchId
    from execsrv.protocol.files import Block as Block
    from execsrv.protocol.files import BlockRead as BlockRead
    from execsrv.protocol.files import BlockWrite as BlockWrite
    from execsrv.protocol.files import CanonicalPath as CanonicalPath
    from execsrv.protocol.files import DirectoryCreate as DirectoryCreate
    from execsrv.protocol.files import DirectoryEntry as DirectoryEntry
    from execsrv.protocol.files import DirectoryListing as DirectoryListing
    from execsrv.protocol.files import FileCall as FileCall
    from execsrv.protocol.files import FileCopy as FileCopy
    from execsrv.protocol.files import FileData as FileData
    from execsrv.protocol.files import FileHandle as FileHandle
    from execsrv.protocol.files import FileMetadata as FileMetadata
    from execsrv.protocol.files import FileOpen as FileOpen
    from execsrv.protocol.files import FilePath as FilePath
    from execsrv.protocol.files import FileRemove as FileRemove
    from execsrv.protocol.files import FileWalk as FileWalk
    from execsrv.protocol.files import FileWrite as FileWrite
    from execsrv.protocol.files import MissingChanged as MissingChanged
    from execsrv.protocol.files import Walked as Walked
    from execsrv.protocol.files import WalkEntry as WalkEntry
    from execsrv.protocol.files import WalkError as WalkError
    from execsrv.protocol.files import WalkOptions as WalkOptions
    from execsrv.protocol.files import Watching as Watching
    from execsrv.protocol.files import WatchMissing as WatchMissing
    from execsrv.protocol.host import CapabilitiesDiscover as CapabilitiesDiscover
    from execsrv.protocol.host import CapabilitiesFound as CapabilitiesFound
    from execsrv.protocol.host import CapabilityRoot as CapabilityRoot
    from execsrv.protocol.host import CapabilityRootFound as CapabilityRootFound
    from execsrv.protocol.host import CapabilityRootsDiscover as CapabilityRootsDiscover
    from execsrv.protocol.host import CapabilityRootsFound as CapabilityRootsFound
    from execsrv.protocol.host import ConfigLayer as ConfigLayer
    from execsrv.protocol.host import ConfigLayers as ConfigLayers
    from execsrv.protocol.host import EnvironmentConfig as EnvironmentConfig
    from execsrv.protocol.host import EnvironmentConfigRead as EnvironmentConfigRead
    from execsrv.protocol.host import EnvironmentInfo as EnvironmentInfo
    from execsrv.protocol.host import EnvironmentStatus as EnvironmentStatus
    from execsrv.protocol.host import Shell as Shell
    from execsrv.protocol.host import Unit as Unit
    from execsrv.protocol.http import HttpBodyDelta as HttpBodyDelta
    from execsrv.protocol.http import HttpBodyPiece as HttpBodyPiece
    from execsrv.protocol.http import HttpField as HttpField
    from execsrv.protocol.http import HttpHeader as HttpHeader
    from execsrv.protocol.http import HttpRequest as HttpRequest
    from execsrv.protocol.http import HttpRequestId as HttpRequestId
    from execsrv.protocol.http import HttpResponse as HttpResponse
    from execsrv.protocol.listing import ListedProcess as ListedProcess
    from execsrv.protocol.listing import ProcessAttach as ProcessAttach
    from execsrv.protocol.listing import ProcessAttached as ProcessAttached
    from execsrv.protocol.listing import ProcessDetach as ProcessDetach
    from execsrv.protocol.listing import ProcessList as ProcessList
    from execsrv.protocol.listing import ProcessListing as ProcessListing
    from execsrv.protocol.messages import PROTOCOL_VERSION as PROTOCOL_VERSION
    from execsrv.protocol.messages import Envelope as Envelope
    from execsrv.protocol.messages import ErrorObject as ErrorObject
    from execsrv.protocol.messages import Failure as Failure
    from execsrv.protocol.messages import Message as Message
    from execsrv.protocol.messages import MessageId as MessageId
    from execsrv.protocol.messages import Nothing as Nothing
    from execsrv.protocol.messages import Notification as Notification
    from execsrv.protocol.messages import Request as Request
    from execsrv.protocol.messages import Response as Response
    from execsrv.protocol.messages import Wire as Wire
    from execsrv.protocol.methods import METHODS as METHODS
    from execsrv.protocol.methods import NOTIFICATIONS as NOTIFICATIONS
    from execsrv.protocol.methods import Method as Method
    from execsrv.protocol.output import AtMs as AtMs
    from execsrv.protocol.output import Chunk as Chunk
    from execsrv.protocol.output import Layer as Layer
    from execsrv.protocol.output import Member as Member
    from execsrv.protocol.output import ProcessClosed as ProcessClosed
    from execsrv.protocol.output import ProcessExited as ProcessExited
    from execsrv.protocol.output import ProcessGap as ProcessGap
    from execsrv.protocol.output import ProcessOutput as ProcessOutput
    from execsrv.protocol.output import ReadGap as ReadGap
    from execsrv.protocol.output import Reason as Reason
    from execsrv.protocol.output import Stream as Stream
    from execsrv.protocol.output import seconds_since_start as seconds_since_start
    from execsrv.protocol.process import EnvPolicy as EnvPolicy
    from execsrv.protocol.process import Grace as Grace
    from execsrv.protocol.process import Graceful as Graceful
    from execsrv.protocol.process import OutputFile as OutputFile
    from execsrv.protocol.process import ProcessAck as ProcessAck
    from execsrv.protocol.process import ProcessCloseStdin as ProcessCloseStdin
    from execsrv.protocol.process import ProcessId as ProcessId
    from execsrv.protocol.process import ProcessOutputRead as ProcessOutputRead
    from execsrv.protocol.process import ProcessRead as ProcessRead
    from execsrv.protocol.process import ProcessResize as ProcessResize
    from execsrv.protocol.process import ProcessSignal as ProcessSignal
    from execsrv.protocol.process import ProcessSignaled as ProcessSignaled
    from execsrv.protocol.process import ProcessSnapshot as ProcessSnapshot
    from execsrv.protocol.process import ProcessStart as ProcessStart
    from execsrv.protocol.process import ProcessStarted as ProcessStarted
    from execsrv.protocol.process import ProcessTerminate as ProcessTerminate
    from execsrv.protocol.process import ProcessWait as ProcessWait
    from execsrv.protocol.process import ProcessWaited as ProcessWaited
    from execsrv.protocol.process import ProcessWrite as ProcessWrite
    from execsrv.protocol.process import ProcessWritten as ProcessWritten
    from execsrv.protocol.process import Running as Running
    from execsrv.protocol.process import SignalTarget as SignalTarget
    from execsrv.protocol.process import Size as Size
    from execsrv.protocol.process import StreamSnapshot as StreamSnapshot
    from execsrv.protocol.sharing import ConnectionEnd as ConnectionEnd
    from execsrv.protocol.sharing import ConnectionGrant as ConnectionGrant
    from execsrv.protocol.sharing import ConnectionGranted as ConnectionGranted
    from execsrv.protocol.sharing import ConnectionId as ConnectionId
    from execsrv.protocol.sharing import ConnectionJoin as ConnectionJoin
    from execsrv.protocol.sharing import ConnectionJoined as ConnectionJoined
    from execsrv.protocol.sharing import ConnectionList as ConnectionList
    from execsrv.protocol.sharing import ConnectionPresence as ConnectionPresence
    from execsrv.protocol.sharing import ConnectionRevoke as ConnectionRevoke
    from execsrv.protocol.sharing import ConnectionRevoked as ConnectionRevoked
    from execsrv.protocol.sharing import JoinedMember as JoinedMember
    from execsrv.protocol.sharing import JoinRole as JoinRole
    from execsrv.protocol.sharing import Keep as Keep
    from execsrv.protocol.sharing import ListedConnection as ListedConnection
    from execsrv.protocol.sharing import SizePolicy as SizePolicy
    from execsrv.protocol.waiting import Happening as Happening
    from execsrv.protocol.waiting import InputWait as InputWait
    from execsrv.protocol.waiting import PortWish as PortWish
    from execsrv.protocol.waiting import ProcessHappened as ProcessHappened
    from execsrv.protocol.waiting import ProcessWaitFor as ProcessWaitFor
else:
    _NAMES = {
        "ceilings": "Ceiling Ceilings CeilingScope CeilingsAsked",
        "command": "Accepted CommandExec CommandExited CommandId CommandOutputDelta CommandWrite",
        "connection": "Initialize Initialized ServerShutdown",
        "file_extras": (
            "BlockChecksum Checksum FileAppend FileChange FileList FileRename FileStat FileStatus LinkCreate"
            " ListedFile TreeChange TreeChanges TreeWatch WatchId"
        ),
        "files": (
            "Block BlockRead BlockWrite CanonicalPath DirectoryCreate DirectoryEntry DirectoryListing FileCall"
            " FileCopy FileData FileHandle FileMetadata FileOpen FilePath FileRemove FileWalk FileWrite"
            " MissingChanged Walked WalkEntry WalkError WalkOptions Watching WatchMissing"
        ),
        "host": (
            "CapabilitiesDiscover CapabilitiesFound CapabilityRoot CapabilityRootFound CapabilityRootsDiscover"
            " CapabilityRootsFound ConfigLayer ConfigLayers EnvironmentConfig EnvironmentConfigRead"
            " EnvironmentInfo EnvironmentStatus Shell Unit"
        ),
        "http": "HttpBodyDelta HttpBodyPiece HttpField HttpHeader HttpRequest HttpRequestId HttpResponse",
        "listing": "ListedProcess ProcessAttach ProcessAttached ProcessDetach ProcessList ProcessListing",
        "messages": (
            "PROTOCOL_VERSION Envelope ErrorObject Failure Message MessageId Nothing Notification Request Response Wire"
        ),
        "methods": "METHODS NOTIFICATIONS Method",
        "output": (
            "AtMs Chunk Layer Member ProcessClosed ProcessExited ProcessGap ProcessOutput ReadGap Reason Stream"
            " seconds_since_start"
        ),
        "process": (
            "EnvPolicy Grace Graceful OutputFile ProcessAck ProcessCloseStdin ProcessId ProcessOutputRead ProcessRead"
            " ProcessResize ProcessSignal ProcessSignaled ProcessSnapshot ProcessStart ProcessStarted ProcessTerminate"
            " ProcessWait ProcessWaited ProcessWrite ProcessWritten Running SignalTarget Size StreamSnapshot"
        ),
        "sharing": (
            "ConnectionEnd ConnectionGrant ConnectionGranted ConnectionId ConnectionJoin ConnectionJoined"
            " ConnectionList ConnectionPresence ConnectionRevoke ConnectionRevoked JoinedMember JoinRole Keep"
            " ListedConnection SizePolicy"
        ),
        "waiting": "Happening InputWait PortWish ProcessHappened ProcessWaitFor",
    }
    """The names that each module has for others."""

    _HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}
    __all__ = sorted(_HOMES)

    def __getattr__(name: str) -> object:
        """Return a name, and have it here from now on."""
        if name not in _HOMES:
            raise AttributeError(f"module 'execsrv.protocol' has no attribute {name!r}")
        from importlib import import_module

        globals()[name] = found = getattr(import_module(f"execsrv.protocol.{_HOMES[name]}"), name)
        return found
