"""``atelier survey serve NAME``: the app under uvicorn, on localhost unless asked otherwise."""

import sys
from urllib.parse import urlsplit

from atelier import connections
from atelier.config.profile import Profile
from atelier.errors import ArtifactError, ParamsError
from survey import files
from survey.app import server, votes

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def run(profile: Profile, name: str, host: str, port: int) -> None:
    """Serve until stopped.

    Raises:
        ParamsError: It should listen to others while links lead to this machine; or the port
            is taken.
        ArtifactError: There is no such study, or a picture is missing.
    """
    import uvicorn

    address = profile.survey.address
    if host not in _LOOPBACK and urlsplit(address).hostname in _LOOPBACK:
        raise ParamsError(
            f"survey.address is {address}, which only this machine can reach, but --host "
            f"{host} listens to others; set survey.address to the address that people use"
        )
    study, pictures = files.study(name), files.folder(name) / "pictures"
    missing = [one for one in study.pictures if not (pictures / one).is_file()]
    if missing:
        raise ArtifactError(
            f"{pictures} lacks {len(missing)} of {len(study.pictures)} pictures, such as "
            f"{missing[0]}; restore the folder as `atelier survey make` wrote it"
        )
    _check_free(host, port)
    book = votes.opened(name)
    sys.stdout.write(f"asking on http://{host}:{port}, people come by {address}\n")
    sys.stdout.flush()
    uvicorn.run(
        server.application(study, book, pictures, address),
        host=host,
        port=port,
        access_log=False,  # addresses contain secret links
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=10,
    )
    book.close()


def _check_free(host: str, port: int) -> None:
    why = connections.why_taken(host, port)
    if why:
        raise ParamsError(
            f"--host {host} --port {port} cannot be opened: {why}; is another server running "
            "there?"
        )
