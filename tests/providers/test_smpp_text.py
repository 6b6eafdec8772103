"""Alphabets, parts and what comes in: tables of cases, and the part count that the form has promised."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.tiny_smsc import deliver, option
from worker import clock, segments
from worker.providers import smpp_text
from worker.providers.base import InboundMessage, RawCallback, StatusUpdate
from worker.providers.smpp import Smpp, spellings
from worker.providers.smpp_line import IDENTITY, RECEIVED_AT
from worker.providers.smpp_wire import Unreadable

SHARED = Path(os.environ.get("MOLVA_SHARED") or Path(__file__).parents[3] / "shared")
CASES = SHARED / "data" / "sms_segments.json"
ROOM = {"udh8": (153, 67), "udh16": (152, 66), "sar": (153, 67)}


def parts(text: str, form: str = "udh8", alphabet: str = "gsm7", reference: int = 0x1234) -> list[smpp_text.Part]:
    return smpp_text.parts(text, alphabet=alphabet, form=form, reference=reference)


def text_of(found: Iterable[smpp_text.Part], alphabet: str = "gsm7") -> str:
    return "".join(smpp_text.decoded(part.octets, part.coding, alphabet) or "" for part in found)


# --- out --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count", "coding"),
    [
        ("", 0, 0),
        ("a" * 160, 1, 0),
        ("a" * 161, 2, 0),
        ("a" * 306, 2, 0),
        ("a" * 307, 3, 0),
        ("a" * 152 + "€" + "a" * 152, 3, 0),
        ("[" * 80, 1, 0),
        ("[" * 81, 2, 0),
        ("я" * 70, 1, 8),
        ("я" * 71, 2, 8),
        ("я" * 66 + "😀" + "я" * 66, 3, 8),
        ("😀" * 35, 1, 8),
        ("`" * 71, 2, 8),
        ("§\f" * 10, 1, 0),
    ],
)
def test_a_text_is_cut_as_it_was_counted(text: str, count: int, coding: int) -> None:
    found = parts(text)
    assert len(found) == count == segments.count(text).segments
    assert all(part.coding == coding for part in found)
    assert text_of(found) == text


def test_the_shared_table_of_texts_is_cut_as_it_says() -> None:
    if not CASES.is_file():
        pytest.skip("needs the folder shared beside the repository, or MOLVA_SHARED")
    for case in json.loads(CASES.read_text(encoding="utf-8"))["cases"]:
        found = parts(case["text"])
        assert len(found) == case["segments"], case["name"]
        assert all(part.coding == (0 if case["encoding"] == "GSM-7" else 8) for part in found), case["name"]


@given(
    st.text(st.sampled_from("ab[]€{яж😀🏳é\n"), max_size=700),
    st.sampled_from(sorted(ROOM)),
    st.sampled_from(smpp_text.ALPHABETS),
)
def test_no_part_is_too_long_and_together_they_are_the_text(text: str, form: str, alphabet: str) -> None:
    found = parts(text, form, alphabet)
    # Each part is read alone: half a character at an end would not survive that.
    assert text_of(found, alphabet) == text
    if len(found) < 2:
        return
    for part in found:
        assert len(part.header) + len(part.octets) <= (160 if part.coding == 0 else 140)
        septets, units = ROOM[form]
        assert len(part.octets) <= (septets if part.coding == 0 else 2 * units)
        if part.coding == 8:
            assert not 0xDC00 <= int.from_bytes(part.octets[:2], "big") <= 0xDFFF


def test_each_form_says_where_a_part_belongs() -> None:
    text = "a" * 320
    assert [part.header.hex() for part in parts(text, "udh8")] == ["050003340301", "050003340302", "050003340303"]
    assert [part.header.hex() for part in parts(text, "udh16")] == [
        "06080412340301",
        "06080412340302",
        "06080412340303",
    ]
    assert [part.sar for part in parts(text, "sar")] == [(0x1234, 3, 1), (0x1234, 3, 2), (0x1234, 3, 3)]
    (whole,) = parts(text, "payload")
    assert (whole.payload, len(whole.octets)) == (True, 320)
    (short,) = parts("hi", "payload")
    assert (short.payload, short.octets) == (False, b"hi")


def test_the_wire_does_not_number_more_than_255_parts() -> None:
    assert len(parts("a" * 153 * 255)) == 255
    with pytest.raises(ValueError, match="256 parts"):
        parts("a" * 153 * 256)


@pytest.mark.parametrize(
    ("alphabet", "text", "coding", "octets"),
    [
        ("gsm7", "@é€", 0, b"\x00\x05\x1b\x65"),
        ("latin1", "@é", 0, b"@\xe9"),
        ("latin1", "[a]", 0, b"[a]"),
        ("latin1", "€", 8, b"\x20\xac"),
        ("latin1", "ê", 8, b"\x00\xea"),
        ("ascii", "a@b", 0, b"a@b"),
        ("ascii", "é", 8, b"\x00\xe9"),
        ("gsm7", "ДА", 8, b"\x04\x14\x04\x10"),
    ],
)
def test_the_default_alphabet_is_the_channels(alphabet: str, text: str, coding: int, octets: bytes) -> None:
    assert [(part.coding, part.octets) for part in parts(text, alphabet=alphabet)] == [(coding, octets)]


# --- in ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "coding", "alphabet", "text"),
    [
        (b"\x00\x05\x1b\x65", 0, "gsm7", "@é€"),
        (b"caf\xe9", 0, "gsm7", "café"),  # no septets: it was Latin-1 after all
        (b"caf\xe9", 0, "latin1", "café"),
        (b"STOP", 0, "ascii", "STOP"),
        (b"caf\xe9", 3, "gsm7", "café"),
        (b"plain", 1, "gsm7", "plain"),
        (b"\xc4\xd0", 6, "gsm7", "Фа"),
        ("СТОП".encode("utf-16-be"), 8, "gsm7", "СТОП"),
        ("СТОП".encode("utf-16-be") + b"\x04", 8, "gsm7", "СТОП"),
        ("да".encode("utf-16-be"), 0x18, "gsm7", "да"),
        (b"\x00", 0xF1, "gsm7", "@"),
        (b"a\x1b\x0bb\x1b", 0, "gsm7", "a\ufffdb"),
        (b"\x01\x02", 4, "gsm7", None),
        (b"\x01\x02", 0xF5, "gsm7", None),
    ],
)
def test_a_text_that_comes_in_is_read(octets: bytes, coding: int, alphabet: str, text: str | None) -> None:
    assert smpp_text.decoded(octets, coding, alphabet) == text


@given(st.binary(max_size=300), st.integers(0, 255), st.sampled_from(smpp_text.ALPHABETS))
def test_whatever_comes_in_never_fails(octets: bytes, coding: int, alphabet: str) -> None:
    found = smpp_text.decoded(octets, coding, alphabet)
    assert found is None or found.encode().decode() == found
    assert smpp_text.header(octets).size <= len(octets)


def read(octets: bytes, marks: dict[str, str] | None = None, **settings: str) -> list[StatusUpdate | InboundMessage]:
    return list(Smpp(settings).parse(RawCallback("SMPP", "", {}, marks or {}, octets)))


def receipt(text: str, options: bytes = b"", esm_class: int = 0x04) -> StatusUpdate | None:
    found = read(deliver(text=text.encode(), esm_class=esm_class, options=options), {RECEIVED_AT: "1793869200000"})
    assert len(found) < 2
    return found[0] if found and isinstance(found[0], StatusUpdate) else None


USUAL = "id:{id} sub:001 dlvrd:001 submit date:2611051200 done date:2611051201 stat:{stat} err:000 text:hello"


@pytest.mark.parametrize(
    ("stat", "status", "code"),
    [
        ("DELIVRD", "delivered", None),
        ("DELIVERED", "delivered", None),
        ("ENROUTE", "sent", None),
        ("ACCEPTD", "sent", None),
        ("EXPIRED", "failed", "smpp_expired"),
        ("DELETED", "failed", "smpp_deleted"),
        ("UNDELIV", "failed", "smpp_undeliv"),
        ("REJECTD", "failed", "smpp_rejectd"),
        ("rejected", "failed", "smpp_rejectd"),
    ],
)
def test_a_receipt_says_what_became_of_a_message(stat: str, status: str, code: str | None) -> None:
    found = receipt(USUAL.format(id="A-1", stat=stat))
    assert found == StatusUpdate(
        status=status,
        at=1793869200000,
        provider_id="A-1",
        code=code,
        detail="err:000" if code else None,
        phone="+79160000001",
    )


@pytest.mark.parametrize("stat", ["UNKNOWN", "NONSENSE", "DEL", ""])
def test_a_state_that_says_nothing_changes_nothing(stat: str) -> None:
    assert receipt(USUAL.format(id="1", stat=stat)) is None


def test_optional_parameters_say_more_than_the_text() -> None:
    options = (
        option(0x1400, b"vendor")
        + option(0x001E, b"real\x00")
        + option(0x0427, b"\x05")
        + option(0x0423, b"\x03\x00\x0b")
    )
    found = receipt(USUAL.format(id="text", stat="DELIVRD"), options)
    assert found is not None
    assert (found.provider_id, found.status, found.code) == ("real", "failed", "smpp_undeliv")
    assert found.also == ("text",)


def test_a_receipt_may_leave_almost_everything_out() -> None:
    found = receipt("id:7 stat:DELIVRD")
    assert found is not None
    assert (found.provider_id, found.status) == ("7", "delivered")
    assert receipt("stat:DELIVRD") is None
    plain = receipt("", option(0x001E, b"9\x00") + option(0x0427, b"\x02"), esm_class=0)
    assert plain is not None
    assert (plain.provider_id, plain.status) == ("9", "delivered")


def test_an_interim_report_never_ends_a_message() -> None:
    found = receipt(USUAL.format(id="1", stat="DELIVRD"), esm_class=0x20)
    assert found is not None
    assert found.status == "sent"


@pytest.mark.parametrize("esm_class", [0x08, 0x10])
def test_acknowledgements_by_the_phone_are_passed_over(esm_class: int) -> None:
    assert read(deliver(text=b"ok", esm_class=esm_class)) == []


@pytest.mark.parametrize(
    ("reported", "answered"),
    [
        ("11206657", "ab0001"),
        ("11206657", "AB0001"),
        ("11206657", "00ab0001"),
        ("ab0001", "11206657"),
        ("00AB0001", "ab0001"),
        ("0042", "42"),
        ("42", "0000000042"),
        ("10000000", "989680"),
    ],
)
def test_an_id_is_known_in_its_other_spellings(reported: str, answered: str) -> None:
    assert answered in spellings(reported)
    assert reported not in spellings(reported)


def test_words_are_spelt_in_one_way_only() -> None:
    assert spellings("op-0000001") == ()
    assert spellings("3f2a9c1e-77aa-4b1c-9d1e-2f3a4b5c6d7e") == ()


@pytest.mark.parametrize(
    ("ton", "source", "region", "expected"),
    [
        (1, "79161234567", "RU", "+79161234567"),
        (1, "+79161234567", "RU", "+79161234567"),
        (1, "77011234567", "RU", "+77011234567"),
        (0, "79161234567", "RU", "+79161234567"),
        (0, "89161234567", "RU", "+79161234567"),
        (2, "89161234567", "RU", "+79161234567"),
        (2, "9161234567", "RU", "+79161234567"),
        (0, "447400123456", "RU", "+447400123456"),
        (2, "07400123456", "GB", "+447400123456"),
        (0, "99999999999", "RU", "+99999999999"),
        (2, "89161234567", "nowhere", "+89161234567"),
        (3, "1234", "RU", "1234"),
        (5, "79161234567", "RU", "79161234567"),
        (5, "Bank", "RU", "Bank"),
    ],
)
def test_who_it_is_from(ton: int, source: str, region: str, expected: str) -> None:
    (reply,) = read(deliver(text=b"STOP", ton=ton, source=source.encode()), region=region)
    (report,) = read(deliver(text=b"id:1 stat:DELIVRD", ton=ton, source=source.encode(), esm_class=0x04), region=region)
    assert isinstance(reply, InboundMessage)
    assert reply.phone == report.phone == expected


def test_a_number_as_written_at_home_is_russian_unless_told_otherwise() -> None:
    (reply,) = read(deliver(text=b"STOP", ton=2, source=b"89161234567"))
    assert reply.phone == "+79161234567"


def test_a_reply_has_its_text_its_moment_and_the_id_that_the_line_gave() -> None:
    marks = {IDENTITY: "abc", RECEIVED_AT: "1793869200000"}
    (found,) = read(deliver(text="Да".encode("utf-16-be"), coding=8, source=b"+79161112233"), marks)
    assert found == InboundMessage("abc", "+79161112233", 1793869200000, text="Да")


def test_a_stored_pdu_without_marks_can_still_be_read() -> None:
    (one,), (same,), (other,) = (read(deliver(n, b"yes")) for n in (1, 1, 2))
    assert isinstance(one, InboundMessage)
    assert abs(one.at - clock.now()) < 5_000
    assert one.provider_id == same.provider_id != other.provider_id


@pytest.mark.parametrize(
    ("header", "options", "part"),
    [
        (b"\x05\x00\x03\x2a\x03\x02", b"", ("2a", 2, 3)),
        (b"\x06\x08\x04\x12\x34\x02\x01", b"", ("1234", 1, 2)),
        (b"\x0b\x05\x04\x23\xf4\x00\x00\x00\x03\x07\x02\x01", b"", ("07", 1, 2)),
        (b"\x0a\x05\x04\x23\xf4\x00\x00\x00\x03\x07\x02", b"", None),
        (b"\x05\x00\x03\x2a\x01\x01", b"", None),
        (b"\x05\x00\x03\x2a\x02\x03", b"", None),
        (b"", option(0x020C, b"\x00\x07") + option(0x020E, b"\x02") + option(0x020F, b"\x01"), ("s0007", 1, 2)),
        (b"", option(0x020C, b"\x00\x07"), None),
    ],
)
def test_a_part_of_a_long_reply_says_where_it_belongs(
    header: bytes, options: bytes, part: tuple[str, int, int] | None
) -> None:
    (found,) = read(deliver(text=header + b"hello", esm_class=0x40 if header else 0, options=options))
    assert isinstance(found, InboundMessage)
    assert found.part == part
    assert part is None or found.text == "hello"


def test_a_reply_may_come_as_a_payload() -> None:
    (found,) = read(deliver(options=option(0x0424, b"a long one " * 30)))
    assert isinstance(found, InboundMessage)
    assert found.text == "a long one " * 30


def test_a_text_in_a_national_alphabet_is_not_misread() -> None:
    (found,) = read(deliver(text=b"\x03\x25\x01\x01abc", esm_class=0x40))
    assert isinstance(found, InboundMessage)
    assert (found.kind, found.text) == ("unsupported", "")


@given(st.binary(max_size=120))
def test_a_stored_pdu_is_read_or_called_unreadable(octets: bytes) -> None:
    try:
        read(deliver()[:16] + octets)
    except Unreadable:
        return
