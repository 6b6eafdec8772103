"""SMPP's bytes: smpplib builds and reads the PDUs, framing and optional parameters are read here.

smpplib is an extra (`molva[smpp]`) and imported when it is first needed, so that the registry works without it.
It believes whatever an optional parameter says and gives up at one that it does not know; receipts are too
precious for that.
"""

from __future__ import annotations

import importlib.util
import struct
from typing import Any, NamedTuple

from worker.providers.smpp_text import HAS_HEADER, Part

HEAD = 16
LONGEST = 64 * 1024  # octets of one PDU
ANSWER = 0x80000000
SUBMIT, DELIVER, UNBIND, ENQUIRE, ALERT, OUTBIND = 0x04, 0x05, 0x06, 0x15, 0x102, 0x0B
NACK = ANSWER
OK, UNKNOWN_COMMAND, TRY_AGAIN = 0x00, 0x03, 0x64  # command_status
LAST_SEQUENCE = 0x7FFFFFFF

_SAR = (0x020C, 0x020E, 0x020F)  # reference, total, number
_PAYLOAD, _RECEIPTED, _STATE = 0x0424, 0x001E, 0x0427
_HEADER = struct.Struct(">4I")


class Unreadable(Exception):
    """Bytes that are no PDU, or not the one that they say."""


class Address(NamedTuple):
    """A phone number or name with its type of number and numbering plan."""

    ton: int
    npi: int
    text: str


class Pdu(NamedTuple):
    """One PDU, of which only the head has been read."""

    command: int
    status: int
    sequence: int
    octets: bytes


class Delivered(NamedTuple):
    """A deliver_sm: a receipt or a message from a person."""

    esm_class: int
    source: Address
    coding: int
    text: bytes
    receipted: str
    state: int | None
    sar: tuple[int, int, int] | None  # reference, total, number


def installed() -> bool:
    """Whether the extra is there."""
    return importlib.util.find_spec("smpplib") is not None


def _new(command: str, **fields: Any) -> Any:
    from smpplib import smpp

    return smpp.make_pdu(command, sequence=0, **fields)


def bind(system_id: str, password: str, system_type: str) -> bytes:
    """A bind_transceiver. Raises ValueError for what its fields cannot hold."""
    from smpplib.command import Param

    pdu = _new("bind_transceiver", system_id=system_id, password=password, system_type=system_type)
    # smpplib cuts a password after the 8 characters of the standard; vendors give out longer ones.
    pdu.params = {**pdu.params, **{name: Param(type=str, max=64) for name in ("system_id", "password", "system_type")}}
    return bytes(pdu.generate())


def submit(source: Address, destination: Address, part: Part) -> bytes:
    """A submit_sm without its number; a receipt is asked for. Raises ValueError for what its fields cannot hold."""
    pdu = _new(
        "submit_sm",
        source_addr_ton=source.ton,
        source_addr_npi=source.npi,
        source_addr=source.text,
        dest_addr_ton=destination.ton,
        dest_addr_npi=destination.npi,
        destination_addr=destination.text,
        esm_class=HAS_HEADER if part.header else 0,
        registered_delivery=1,
        data_coding=part.coding,
    )
    if part.payload:
        pdu.message_payload = part.octets
    else:
        pdu.short_message = part.header + part.octets
    if part.sar is not None:
        pdu.sar_msg_ref_num, pdu.sar_total_segments, pdu.sar_segment_seqnum = part.sar
    return bytes(pdu.generate())


def request(command: str) -> bytes:
    """An enquire_link or unbind without its number."""
    return bytes(_new(command).generate())


def answer(pdu: Pdu, status: int = OK) -> bytes:
    """The answer to a request of the SMSC; a generic_nack to one that we do not know."""
    names = {DELIVER: "deliver_sm_resp", UNBIND: "unbind_resp", ENQUIRE: "enquire_link_resp"}
    name = names.get(pdu.command)
    if name is None:
        return numbered(bytes(_new("generic_nack", status=UNKNOWN_COMMAND).generate()), pdu.sequence)
    return numbered(bytes(_new(name, status=status).generate()), pdu.sequence)


def numbered(octets: bytes, sequence: int) -> bytes:
    """The same PDU under this sequence number."""
    return octets[:12] + sequence.to_bytes(4, "big") + octets[HEAD:]


class Frames:
    """Cuts what a socket gives into PDUs, however the bytes arrive. `broken` says why nothing more can be read."""

    def __init__(self) -> None:
        self.broken = ""
        self._have = bytearray()

    def feed(self, octets: bytes) -> list[Pdu]:
        """The PDUs that are complete now."""
        self._have += octets
        found, at = [], 0
        while len(self._have) - at >= HEAD:
            length, command, status, sequence = _HEADER.unpack_from(self._have, at)
            if not HEAD <= length <= LONGEST:
                self.broken = f"a PDU of {length} octets"
                break
            if len(self._have) - at < length:
                break
            found.append(Pdu(command, status, sequence, bytes(self._have[at : at + length])))
            at += length
        del self._have[:at]
        return found


def message_id(pdu: Pdu) -> str:
    """The id in a submit_sm_resp; "" when there is none. Raises Unreadable."""
    unended = b"" if 0 in pdu.octets[HEAD:] else b"\x00"  # some leave out the end of the string
    read = _read("submit_sm_resp", pdu.octets + unended)[0]
    return _string(read.message_id)


def system_id(pdu: Pdu) -> str:
    """Who answered a bind; "" when it does not say."""
    try:
        return _string(_read("bind_transceiver_resp", pdu.octets)[0].system_id)
    except Unreadable:
        return ""


def delivered(octets: bytes) -> Delivered:
    """Read a deliver_sm. Raises Unreadable."""
    read, options = _read("deliver_sm", octets)
    sar = None
    if all(code in options for code in _SAR):
        reference, total, number = (int.from_bytes(options[code], "big") for code in _SAR)
        sar = (reference & 0xFFFF, total, number)
    return Delivered(
        esm_class=read.esm_class or 0,
        source=Address(read.source_addr_ton or 0, read.source_addr_npi or 0, _string(read.source_addr)),
        coding=read.data_coding or 0,
        text=options.get(_PAYLOAD) or read.short_message or b"",
        receipted=_string(options.get(_RECEIPTED)),
        state=options[_STATE][0] if options.get(_STATE) else None,
        sar=sar,
    )


def words(status: int) -> str:
    """What the standard says about a command_status, with its number."""
    from smpplib import consts

    known = consts.DESCRIPTIONS.get(status)
    return f"{known} (0x{status:02x})" if known else f"0x{status:02x}"


def _read(command: str, octets: bytes) -> tuple[Any, dict[int, bytes]]:
    """The fields that every PDU of this kind has, and the optional ones by their code."""
    pdu = _new(command)
    options: dict[int, bytes] = {}
    pdu.parse_optional_params = lambda rest: options.update(_optional(rest))
    try:
        pdu.parse(octets)
    except Exception as error:  # smpplib lets whatever happens happen
        raise Unreadable(type(error).__name__) from error
    return pdu, options


def _optional(octets: bytes) -> dict[int, bytes]:
    """Optional parameters, as many as are whole."""
    found, at = {}, 0
    while at + 4 <= len(octets):
        code, length = struct.unpack_from(">HH", octets, at)
        value = octets[at + 4 : at + 4 + length]
        if len(value) < length:
            break
        found[code] = value
        at += 4 + length
    return found


def _string(value: bytes | str | None) -> str:
    """A C string that smpplib left as bytes."""
    if isinstance(value, str):
        return value
    return (value or b"").partition(b"\x00")[0].decode("latin-1").strip()
