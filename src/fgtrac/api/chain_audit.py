"""The check `evm`: the heads that contracts keep for this trace, by its receipts and by the chains themselves.

A receipt says where on its chain a head stands; whether it stands there only a node can tell. The chain is also asked
for every other head of the same account and trace: a history that was rewritten contradicts one of them, whatever
became of the receipts. And each receipt's head has to be among those: only what the contract tells of now was given in
one order. Of several nodes of a chain every one is asked, and all have to say the same; a contradiction that one shows
counts, whatever the others do not answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from fgtrac.anchor.outcomes import NoContractError, OtherCodeError
from fgtrac.api.trusted_anchors import TrustedAnchors
from fgtrac.errors import AnchorError, ProofError
from fgtrac.tlog.note import TreeHead
from fgtrac.verify.anchors import Tally, check_folder, examine_all, read_receipt
from fgtrac.verify.auditor import Audit
from fgtrac.verify.checks import CannotTell, TraceFiles
from fgtrac.verify.evm_receipt import EvmReceipt, format_address, parse_address, parse_evm_receipt
from fgtrac.verify.one_moment import OneMoment
from fgtrac.verify.receipts import EVM, evm_name, paths_of
from fgtrac.verify.sightings import Witnessed, utc
from fgtrac.verify.since import check_extends
from fgtrac.verify.tree import Log
from fgtrac.verify.updates import counted

if TYPE_CHECKING:
    from fgtrac.anchor.evm import Node

Place = tuple[int, bytes, bytes]  # chain id, contract, sender
Nodes = Mapping[int, Sequence["Node"]]  # by the chain's id
Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class ChainCheck:
    """The check, for a verifier who believes certain nodes; they are asked only when it is made."""

    def __init__(self, trusted: TrustedAnchors) -> None:
        """ValueError for what is no URL, no address, or fewer than 1 confirmation."""
        self._nodes = trusted.make_nodes()
        self._contracts = tuple(map(parse_address, trusted.contracts))
        self._accounts = tuple(map(parse_address, trusted.accounts))
        self._confirmations = trusted.confirmations
        if self._confirmations < 1:
            raise ValueError(f"{self._confirmations} confirmations; the block that has the head is the first")

    def examine(self, trace: TraceFiles, audit: Audit) -> str:
        """In words, which heads of the log the chains keep; needs the checks of `entries` and `run`.

        ProofError for a receipt that is malformed, moved, of another trace or contradicted by its chain, and for a head
        on a chain that is none of this log. CannotTell without a node that answers, where a receipt's head is no longer
        on its chain or not deep enough, where nodes disagree, and where there is none.
        """
        assert audit.log is not None
        log, trace_id = audit.log, audit.facts.runs[0][1]["trace"]
        receipts: dict[str, EvmReceipt] = {}

        def read(path: str) -> None:
            receipts[path] = _read(trace, path, trace_id, log)

        examine_all(paths_of(trace.names(), EVM), read)
        if not self._nodes:
            chains = ", ".join(str(chain) for chain in sorted({r.chain_id for r in receipts.values()}))
            raise CannotTell(
                f"{counted(len(receipts), 'receipt')} of heads on chain {chains}: whether they stand there only a node "
                "tells, and none is named: --evm RPC_URL"
            )
        tally = self._ask(receipts, trace_id, trace, log)
        if not (tally.held or tally.refuted or tally.unknown):
            raise CannotTell(self._nothing(receipts))
        return tally.conclude(EVM, audit)

    def _ask(self, receipts: Mapping[str, EvmReceipt], trace_id: bytes, trace: TraceFiles, log: Log) -> Tally:
        """Everything that the nodes say of the receipts, and of all heads where such are kept."""
        tally = Tally()
        nodes: dict[int, list[Node]] = {}
        for node in self._nodes:
            with tally.taking("a node that you named"):
                nodes.setdefault(node.chain_id(), []).append(node)
        known = set(receipts.values())
        kept: dict[Place, list[EvmReceipt]] = {}
        for place in self._places(known, nodes, tally):
            with tally.taking(_name(place)):
                kept[place] = _kept(nodes[place[0]], place, trace_id, trace, log)
        for path, receipt in receipts.items():
            with tally.taking(path):
                self._check_named(receipt)
                if receipt.chain_id not in nodes:
                    raise CannotTell(
                        f"none of the nodes that answered is on chain {receipt.chain_id}; name one that is with --evm"
                    )
                held = self._confirm(nodes[receipt.chain_id], receipt)
                place = receipt.chain_id, receipt.contract, receipt.sender
                if place not in kept:
                    raise CannotTell(f"whether {_name(place)} still tells of this head could not be seen")
                if receipt not in kept[place]:
                    raise CannotTell(
                        f"{_name(place)} does not tell of this head (any more): what stood at that address then is not "
                        "what stands there now; anchor again"
                    )
                tally.held.append(held)
        for place, heads in kept.items():
            with tally.taking(_name(place)):
                for head in heads:
                    if head not in known:
                        with _planted_by_others():
                            tally.held.append(self._confirm(nodes[place[0]], head))
        return tally

    def _check_named(self, receipt: EvmReceipt) -> None:
        """CannotTell where the receipt is of another account or contract than those that were named."""
        for what, there, named in (
            ("account", receipt.sender, self._accounts),
            ("contract", receipt.contract, self._contracts),
        ):
            if named and there not in named:
                you = " and ".join(map(format_address, named))
                raise CannotTell(f"of the {what} {format_address(there)}, and you named {you}")

    def _confirm(self, nodes: Sequence[Node], receipt: EvmReceipt) -> Witnessed:
        """What all nodes of a chain say of a receipt; raises as `anchor.evm.confirm`."""
        from fgtrac.anchor.evm import confirm

        (block_time,) = set(_of_each(nodes, lambda node: confirm(node, receipt, self._confirmations).block_time))
        theirs = " (as the receipts name it)"
        who = f"account {format_address(receipt.sender)}{'' if self._accounts else theirs} in "
        where = f"contract {format_address(receipt.contract)}{'' if self._contracts else theirs} "
        is_named = bool(self._accounts and self._contracts)
        return Witnessed(receipt.size, block_time, f"{who}{where}on chain {receipt.chain_id}", excludes=is_named)

    def _places(self, receipts: set[EvmReceipt], nodes: Nodes, tally: Tally) -> list[Place]:
        """Where to ask for heads of this trace: at the accounts and the contracts that were named, or as the receipts
        say."""
        found = set[Place]()
        named = self._named_contracts(nodes, tally)
        for chain in nodes:
            mine = [r for r in receipts if r.chain_id == chain]
            contracts = named[chain] if self._contracts else {r.contract for r in mine}
            senders = self._accounts or {r.sender for r in mine}
            found |= {(chain, contract, sender) for contract in contracts for sender in senders}
        return sorted(found)

    def _named_contracts(self, nodes: Nodes, tally: Tally) -> dict[int, set[bytes]]:
        """Which of the contracts that were named are on which chain; one that is on none is looked for on each."""
        found: dict[int, set[bytes]] = {chain: set() for chain in nodes}
        for contract in self._contracts:
            chains = list(nodes)
            if len(nodes) > 1:
                with tally.taking(f"contract {format_address(contract)}"):
                    chains = [c for c in nodes if any(_has(node, contract) for node in nodes[c])] or chains
            for chain in chains:
                found[chain].add(contract)
        return found

    def _nothing(self, receipts: Mapping[str, EvmReceipt]) -> str:
        never = "never anchored there, or the receipt vanished"
        if not receipts and not (self._accounts and self._contracts):
            return f"no receipt: {never}; with --evm-account and --evm-contract the chain itself is asked"
        return f"the chain keeps no head of this trace by that account in that contract: {never}"


def _read(trace: TraceFiles, path: str, trace_id: bytes, log: Log) -> EvmReceipt:
    """A receipt, once it is known to be of a head of this log and to lie where it belongs."""
    receipt = parse_evm_receipt(read_receipt(trace, path))
    check_folder(receipt.size, path)
    if receipt.trace_id != trace_id:
        raise ProofError(f"of the trace {receipt.trace_id.hex()}, and this one is {trace_id.hex()}")
    check_extends(TreeHead(log.head.origin, receipt.size, receipt.root), "the head that it says is kept", log)
    name = evm_name(receipt.chain_id, receipt.contract, receipt.sender)
    if PurePosixPath(path).name != name:
        raise ProofError(f"the receipt of this chain, contract and account is named {name}; it was renamed")
    return receipt


@contextmanager
def _planted_by_others() -> Iterator[None]:
    """A head that was made up, and that no receipt speaks of, is a fault of the contract and not of the trace: whoever
    deploys one can plant it. CannotTell, which says so unless only the account's own key can have done it."""
    from fgtrac.anchor.chain_reading import OwnCallError

    try:
        yield
    except OwnCallError as reason:
        raise CannotTell(str(reason)) from None
    except ProofError as reason:
        raise CannotTell(f"{reason}; name another contract than this one") from None


def _name(place: Place) -> str:
    return f"contract {format_address(place[1])} on chain {place[0]}"


def _of_each(things: Iterable[Asked], ask: Callable[[Asked], Answer]) -> list[Answer]:
    """The answers about all of them. ProofError where one gives it, whatever became of the others; only then the first
    CannotTell or AnchorError."""
    answers: list[Answer] = []
    unknown: list[CannotTell | AnchorError] = []
    for thing in things:
        try:
            answers.append(ask(thing))
        except (CannotTell, AnchorError) as reason:
            unknown.append(reason)
    if unknown:
        raise unknown[0]
    return answers


def _has(node: Node, contract: bytes) -> bool:
    """Whether the node's chain has the contract at that address."""
    try:
        node.check_contract(contract)
    except (NoContractError, OtherCodeError):
        return False
    return True


def _kept(nodes: Sequence[Node], place: Place, trace_id: bytes, trace: TraceFiles, log: Log) -> list[EvmReceipt]:
    """All heads that the contract keeps of this trace by that account, each of them one of the log; ProofError
    otherwise, CannotTell where the nodes do not tell of the same."""
    from fgtrac.anchor.evm import anchored_heads

    _, contract, sender = place

    def tell(node: Node) -> list[EvmReceipt]:
        heads = anchored_heads(node, contract, sender, trace_id)
        _of_each(heads, lambda head: _check_kept(node, head, trace, log))
        return heads

    told = _of_each(nodes, tell)
    for node, heads in zip(nodes, told, strict=True):
        if heads != told[0]:
            raise CannotTell(
                f"{nodes[0].name} tells of {counted(len(told[0]), 'head')} and {node.name} of {len(heads)}, not all of "
                "them the same; ask again, or leave out the one that you do not trust"
            )
    return told[0]


def _check_kept(node: Node, head: EvmReceipt, trace: TraceFiles, log: Log) -> None:
    """ProofError for a head on the chain that is none of the log, and that its account did give; CannotTell where it
    did not, or the log has grown since it was read, and that far."""
    from fgtrac.anchor.evm import check_call

    named = (
        f"the head that {format_address(head.sender)} anchored in block {head.block_number} at {utc(head.block_time)}"
    )
    try:
        check_extends(TreeHead(log.head.origin, head.size, head.root), named, log)
    except ProofError:
        with _planted_by_others():
            check_call(node, head)
        if head.size > log.head.size and (now := _size_now(trace)) >= head.size:
            raise CannotTell(
                f"{named} has {head.size} entries; this log had {log.head.size} when it was read and has {now} now: "
                "verify it again"
            ) from None
        raise


def _size_now(trace: TraceFiles) -> int:
    """How many entries the log has now, where it has grown; otherwise 0."""
    now = trace.grown() if isinstance(trace, OneMoment) else None
    return now.size if now is not None else 0
