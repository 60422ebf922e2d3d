"""`fgtrac key`: your signing key: make one, say which there are, put a new one in its place, believe one no longer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fgtrac.api.keys import Rotated, new_key, own_keys, own_vkey, revoke_key, rotate
from fgtrac.cli.console import AsJson, answers, print_json

key = typer.Typer(
    name="key", help="Your signing key: make one, show it, put a new one in its place, revoke it.", no_args_is_help=True
)


@key.command("new")
def new(
    path: Annotated[
        Path | None, typer.Argument(help="the file to make; by default where your key is looked for")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a signing key, readable by you only. The first trace makes one by itself where there is none."""
    made, public = new_key(path)
    if as_json:
        print_json({"path": str(made), "public_key": public.hex()})
    else:
        answers().print(f"{public.hex()} in {made}", soft_wrap=True)


@key.command("show")
def show(
    vkey: Annotated[
        Path | None, typer.Option(help="print the C2SP verifier key of a trace that you sign, and nothing else")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show your public keys: the present one (give it to those who verify), retired and revoked ones."""
    if vkey is not None:
        typer.echo(own_vkey(vkey))
        return
    keys = own_keys()
    if as_json:
        lists = {"retired": keys.retired, "revoked": keys.revoked}
        said = {name: [k.hex() for k in found] for name, found in lists.items()}
        unfinished = [str(path) for path in keys.unfinished]
        print_json({"path": str(keys.path), "public_key": keys.present.hex(), **said, "unfinished": unfinished})
        return
    console = answers()
    console.print(f"key      {keys.present.hex()} in {keys.path}", soft_wrap=True)
    for public in keys.retired:
        console.print(f"retired  {public.hex()}" + (", revoked" if public in keys.revoked else ""))
    for public in keys.revoked:
        if public not in keys.retired:
            console.print(f"revoked  {public.hex()}")
    for path in keys.unfinished:
        where = "" if path.exists() else " (it is there no more, and will be left out)"
        console.print(f"rotation of {path}{where} was begun; fgtrac key rotate finishes it", soft_wrap=True)


@key.command("rotate")
def rotate_(
    traces: Annotated[
        list[Path] | None,
        typer.Argument(help="the traces that the new key is to sign; without any, finish a rotation that was begun"),
    ] = None,
    revoke: Annotated[
        bool,
        typer.Option(
            "--revoke",
            help="say that the key that signs these traces now, and no older one, is no longer believed: it was stolen",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Let a new key sign these traces: your present one if they are under an older one of yours, else one made now.

    The key before is kept, and goes on signing traces that are not named. After a crash, do it again.
    """
    done = rotate(traces or [], revoke=revoke)
    if as_json:
        print_json(
            {
                "public_key": done.public_key.hex(),
                "traces": [
                    {
                        "path": str(r.path),
                        "old": r.old.hex(),
                        "new": r.new.hex(),
                        "revoked": r.revoked,
                        "unrevoked": [key.hex() for key in r.unrevoked],
                        "size": r.size,
                    }
                    for r in done.traces
                ],
                "gone": [str(path) for path in done.gone],
            }
        )
        return
    for r in done.traces:
        _say(r)
    for path in done.gone:
        answers().print(
            f"note: {path} is there no more and was left out; where you have it again, fgtrac key rotate it",
            soft_wrap=True,
        )


def _say(r: Rotated) -> None:
    """What was done to one trace, and what a revocation does not reach."""
    what = "is under" if r.old == r.new else "is now under"
    gone = f"; its log revokes {r.old.hex()}" if r.revoked and r.old != r.new else ""
    answers().print(f"{r.path} {what} {r.new.hex()}, sealed at {r.size} entries{gone}", soft_wrap=True)
    for public in r.unrevoked if r.revoked else ():
        answers().print(
            f"note: {public.hex()}, which signed it before that, is not revoked by its log, which can no longer do so; "
            f"if it was stolen: fgtrac key revoke {public.hex()}",
            soft_wrap=True,
        )


@key.command("revoke")
def revoke(
    public_key: Annotated[str, typer.Argument(help="one of your retired keys, as fgtrac key show prints it")],
    as_json: AsJson = False,
) -> None:
    """Believe one of your retired keys no longer, on this machine, where it is too late to say so in a log.

    For a key that is in use: fgtrac key rotate TRACE... --revoke.
    """
    revoked = revoke_key(public_key).hex()
    if as_json:
        print_json({"revoked": revoked})
        return
    answers().print(
        f"{revoked} is believed no longer here. A log that it still signs says so too once fgtrac key rotate moves it; "
        "one that was moved before cannot: tell who verifies it to name the key that signs it now",
        soft_wrap=True,
    )
