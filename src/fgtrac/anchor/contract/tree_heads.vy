# pragma version ==0.4.3
# pragma optimize gas
# pragma evm-version paris
"""
@title Tree heads
@notice Keeps the newest tree head of each log, by sender and trace id. A head is never replaced by a smaller one or by
        another of its size, by anybody: there is no owner, no upgrade and no way to delete. Every head taken stays as
        an event, and each event says where the one before it stands.
"""

struct Head:
    size: uint64
    root: bytes32
    block_time: uint64
    block_number: uint64

event Anchored:
    sender: indexed(address)
    trace_id: indexed(bytes16)
    size: uint64
    root: bytes32
    block_time: uint64
    previous_block: uint64  # where the event before this one stands, by the same sender and trace; 0: this is the first

# A place is one slot: the size in bits 128 to 191, the block's time (unix seconds) in 64 to 127, its number in 0 to 63.
SIZE_SHIFT: constant(uint256) = 128
TIME_SHIFT: constant(uint256) = 64
LOW_64: constant(uint256) = 2**64 - 1

_places: HashMap[address, HashMap[bytes16, uint256]]
_roots: HashMap[address, HashMap[bytes16, bytes32]]


@external
def anchor(trace_id: bytes16, size: uint64, root: bytes32):
    """
    @notice Takes a head of the sender's log. Reverts where its size is not above that of the head before.
    @param trace_id The log: the 16 bytes of the trace's id.
    @param size How many entries the log has.
    @param root The RFC 6962 Merkle root over them.
    """
    before: uint256 = self._places[msg.sender][trace_id]
    assert convert(size, uint256) > before >> SIZE_SHIFT, "the size does not grow"
    self._places[msg.sender][trace_id] = (
        (convert(size, uint256) << SIZE_SHIFT) | (block.timestamp << TIME_SHIFT) | block.number
    )
    self._roots[msg.sender][trace_id] = root
    log Anchored(
        sender=msg.sender,
        trace_id=trace_id,
        size=size,
        root=root,
        block_time=convert(block.timestamp, uint64),
        previous_block=convert(before & LOW_64, uint64),
    )


@external
@view
def newest(sender: address, trace_id: bytes16) -> Head:
    """
    @notice The newest head of a sender's log; all zero where there is none.
    """
    place: uint256 = self._places[sender][trace_id]
    return Head(
        size=convert(place >> SIZE_SHIFT, uint64),
        root=self._roots[sender][trace_id],
        block_time=convert((place >> TIME_SHIFT) & LOW_64, uint64),
        block_number=convert(place & LOW_64, uint64),
    )
