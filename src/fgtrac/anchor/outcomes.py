"""Every way in which a head does not come to stand on a chain, each a class of its own.

What may go better the next time is an AnchorError, what will not is a RefusedError. Their words name both values.
"""

from __future__ import annotations

from fgtrac.errors import AnchorError, RefusedError


class NoAnswerError(AnchorError):
    """The node could not be reached, or broke off."""


class TimedOutError(AnchorError):
    """The node did not answer in time, or the chain did not take the transaction or bury it in time."""


class NonsenseError(AnchorError):
    """The node answered something that is no answer to what was asked."""


class ContradictionError(AnchorError):
    """Two answers of the node cannot both be true, or one cannot be true of what was sent."""


class NodeError(AnchorError):
    """The node answered with an error of its own; the words behind the colon are the node's."""


class OutrunError(AnchorError):
    """Another transaction of the account took its place, or bids more for it."""


class FeeError(AnchorError):
    """A unit of gas costs more just now than is to be paid for it."""


class ReorganisedError(AnchorError):
    """The block that had the transaction is no longer in the chain."""


class WrongChainError(RefusedError):
    """The node is on another chain than before."""


class NoContractError(RefusedError):
    """There is no code at the contract's address."""


class OtherCodeError(RefusedError):
    """There is code at the contract's address, and it is not the contract's."""


class LowBalanceError(AnchorError):
    """The account cannot pay for the transaction, as long as nobody gives it more."""


class LowGasError(RefusedError):
    """The transaction ran out of gas, or the node did not take it with so little."""


class RevertedError(RefusedError):
    """The contract did not take the head."""


class PlantedHeadError(RefusedError):
    """The contract has a head of the account's log that the account did not give it by a call of its own."""


class OtherHeadError(RefusedError):
    """The account has anchored another head of this size, or a larger one: a fork of the log, or an older head."""
