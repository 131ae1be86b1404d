"What a file says of itself: signed, broken, stripped and hostile; never in the score, in every place that shows it."

import csv
import io
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from PIL import Image, PngImagePlugin

from fakeface.images import provenance as room
from fakeface.images.clues import SOURCE_TYPES
from fakeface.images import memory
from fakeface.images.provenance import INSTALL, TRUST_VARIABLE, Claim, Provenance, from_store, read_provenance
from fakeface.infer import doctor
from fakeface.infer.cards import Cards
from fakeface.infer.rows import ROW_COLUMNS, row_text
from fakeface.testing.credentials import manifest, opened_manifest, signatory, signed, with_a_bit_changed
from fakeface.testing.detectors import BrightDetector
from fakeface.testing.images import image_bytes, png_chunk, portrait

c2pa = pytest.importorskip("c2pa", reason="c2pa-python is not installed: pip install 'fakeface[provenance]'")

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF")
IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
EVIL = "<img src=x onerror=alert(1)>\x1b[2J\x00\u202e\n" + "A" * 5000


@pytest.fixture(scope="module")
def toy():
    return signatory("Toy Studio", "Toy Signer")


@pytest.fixture(scope="module")
def bare():
    "The same image in each format, without a credential."
    options = {"JPEG": dict(quality=90), "WEBP": dict(lossless=True)}
    return {name: image_bytes(portrait(), name, **options.get(name, {})) for name in FORMATS}


@pytest.fixture(scope="module")
def files(toy, bare):
    "The same, signed: made by a model."
    return {name: signed(data, manifest(), toy) for name, data in bare.items()}


def pixels(data):
    return Image.open(io.BytesIO(data)).convert("RGB").tobytes()


# ---- signatures
@pytest.mark.parametrize("name", FORMATS)
def test_a_signed_image_claims_a_model_and_its_signer_is_not_known(files, bare, name):
    found = read_provenance(files[name])
    assert (found.state, found.signer, found.claims_model) == ("untrusted", "Toy Studio (Toy Signer)", True)
    assert found.actions == ("created",) and found.source_types == ("trainedAlgorithmicMedia",)
    assert found.claims == (Claim("C2PA", "made by a trained algorithm", "model", "trainedAlgorithmicMedia"),)
    assert "anyone can make a certificate" in found.says and "made by a trained algorithm" in found.says
    assert pixels(files[name]) == pixels(bare[name])


@pytest.mark.parametrize("name", FORMATS)
def test_a_byte_of_the_image_changed_after_signing_breaks_it(files, bare, name):
    "The byte is one of the image's own, not one of the manifest's: those of the bare file are found in the signed one."
    tail = bare[name][-40:-20]
    place = files[name].rindex(tail)
    found = read_provenance(with_a_bit_changed(files[name], place))
    assert found.state == "invalid" and found.claims_model is None
    assert "changed after it was signed" in found.reason and "counts for nothing" in found.says
    assert found.claims and not found.counted, "what it claims is shown, and counts for nothing"


def test_a_credential_moved_to_another_image_does_not_hold(files, bare):
    head, rest = bare["JPEG"][:20], bare["JPEG"][20:]
    file = files["JPEG"]
    assert file.startswith(head) and file.endswith(rest)
    credential = file[20 : len(file) - len(rest)]
    other = image_bytes(portrait().transpose(Image.Transpose.FLIP_LEFT_RIGHT), "JPEG", quality=90)
    assert read_provenance(head + credential + rest).state == "untrusted"
    found = read_provenance(other[:20] + credential + other[20:])
    assert found.state == "invalid" and found.claims_model is None


def test_a_signer_below_an_authority_on_the_list_is_known(toy, files, tmp_path, monkeypatch):
    other = signatory("Other")
    (tmp_path / "list.pem").write_bytes(
        b"Subject\tCN=Other\n" + other.authority + b"\nSubject\tCN=Toy\n" + toy.authority
    )
    monkeypatch.setenv(TRUST_VARIABLE, str(tmp_path / "list.pem"))
    found = read_provenance(files["JPEG"])
    assert found.state == "trusted" and "on the trust list" in found.says and "anyone" not in found.says
    assert read_provenance(with_a_bit_changed(files["JPEG"])).state == "invalid", "whoever signed it"
    (tmp_path / "list.pem").write_bytes(other.authority)
    assert read_provenance(files["JPEG"]).state == "untrusted"


@pytest.mark.parametrize("content", [None, b"no certificate", b"\xff\xfe\x00", b"-----BEGIN CERTIFICATE-----\n"])
def test_a_trust_list_that_cannot_be_used_is_said(files, bare, tmp_path, monkeypatch, content):
    path = tmp_path / "list.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv(TRUST_VARIABLE, str(path))
    with pytest.raises(room.ProvenanceError, match="list.pem"):
        room.trust_list()
    found = read_provenance(files["PNG"])
    assert found.state == "untrusted" and found.claims_model
    assert "doctor says why" in found.says and str(tmp_path) not in found.says
    assert read_provenance(bare["PNG"]).state == "absent"


PASTED = {
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "CR": lambda text: text.replace("\n", "\r"),
    "indented": lambda text: "anchors: |\n    " + text.replace("\n", "\n    "),
    "one line": lambda text: text.replace("\n", " "),
    "BOM and a comment": lambda text: "\ufeff# ours\n" + text,
}


@pytest.mark.parametrize("pasted", PASTED.values(), ids=PASTED)
def test_a_trust_list_may_be_pasted_from_elsewhere(toy, files, tmp_path, monkeypatch, pasted):
    (tmp_path / "list.pem").write_bytes(pasted(toy.authority.decode()).encode())
    monkeypatch.setenv(TRUST_VARIABLE, str(tmp_path / "list.pem"))
    assert read_provenance(files["JPEG"]).state == "trusted"


DAMAGED = {
    "a letter": (lambda text: text.replace("MII", "MI!", 1), "certificate 2 of 2 is damaged"),
    "no certificate": (lambda text: re.sub("-\n[^-]*\n-", "-\nanVuaw==\n-", text), "certificate 2 of 2 is damaged"),
    "cut off": (lambda text: text.partition("-----END")[0], "certificate 2 of 2 has no end"),
    "OpenSSL's form": (
        lambda text: text.replace("CERTIFICATE", "TRUSTED CERTIFICATE"),
        "certificate 2 of 2 is a TRUSTED CERTIFICATE; openssl x509",
    ),
}


@pytest.mark.parametrize("damage, said", DAMAGED.values(), ids=DAMAGED)
def test_one_bad_certificate_on_the_list_is_said_and_no_file_is_blamed(toy, files, tmp_path, monkeypatch, damage, said):
    "Nor is it passed over: whoever should be known would not be, without a word."
    (tmp_path / "list.pem").write_text(toy.authority.decode() + damage(signatory("Other").authority.decode()))
    monkeypatch.setenv(TRUST_VARIABLE, str(tmp_path / "list.pem"))
    with pytest.raises(room.ProvenanceError, match=f"list.pem.*{said}.*take it out"):
        room.trust_list()
    found = read_provenance(files["JPEG"])
    assert found.state == "untrusted" and found.claims_model and "doctor says why" in found.says
    finding = doctor._credentials()
    assert finding.state == "fault" and "certificate 2 of 2" in finding.said


def test_a_list_that_c2pa_refuses_is_said_and_no_file_is_blamed(toy, files, tmp_path, monkeypatch):
    "Whatever it is that is wrong with it: without the list the file can be read."
    (tmp_path / "list.pem").write_bytes(toy.authority)
    monkeypatch.setenv(TRUST_VARIABLE, str(tmp_path / "list.pem"))
    in_full = room._in_a_process

    def refuses(settings, file):
        if "user_anchors" in settings["trust"]:
            raise ValueError("Signature: COSE error parsing certificate")
        return in_full(settings, file)

    monkeypatch.setattr(room, "_in_a_process", refuses)
    found = read_provenance(files["JPEG"])
    assert found.state == "untrusted" and found.claims_model and "c2pa cannot use the trust list" in found.says


@pytest.mark.parametrize("program", [None, "", shutil.which("true"), "/nowhere/uwsgi"])
def test_where_python_is_built_in_no_file_is_blamed(files, monkeypatch, program):
    "There `sys.executable` is another program, or nothing."
    monkeypatch.setattr(sys, "executable", program)
    found = read_provenance(files["JPEG"])
    assert found.state == "not checked" and "cannot start a Python to read it" in found.says
    monkeypatch.undo()
    assert read_provenance(files["JPEG"]).state == "untrusted", "nothing is remembered of a failure"


PURPOSES = {"claims": "1.3.6.1.4.1.62558.2.1", "documents": "1.3.6.1.5.5.7.3.36", "e-mail": "1.3.6.1.5.5.7.3.4"}


@pytest.mark.parametrize("purpose", PURPOSES.values(), ids=PURPOSES)
def test_certificates_for_each_purpose_that_c2pa_allows_hold(bare, tmp_path, monkeypatch, purpose):
    by = signatory(purpose=purpose)
    (tmp_path / "list.pem").write_bytes(by.authority)
    file = signed(bare["JPEG"], manifest(), by)
    assert read_provenance(file).state == "untrusted"
    monkeypatch.setenv(TRUST_VARIABLE, str(tmp_path / "list.pem"))
    assert read_provenance(file).state == "trusted"


def test_an_expired_certificate_is_another_matter_than_a_changed_file(bare):
    by = signatory(days=3 / 86400)
    file = signed(bare["JPEG"], manifest(), by)
    assert read_provenance(file).state == "untrusted"
    time.sleep(4)
    found = read_provenance(file)
    assert found.state == "invalid" and "expired" in found.says and "changed" not in found.says


# ---- stripped
def test_saving_again_removes_it_and_its_absence_says_nothing(files, bare):
    again = image_bytes(Image.open(io.BytesIO(files["PNG"])), "PNG")
    found = read_provenance(again)
    assert found == read_provenance(bare["PNG"]) == Provenance("absent")
    assert "says nothing" in found.says and found.claims_model is None and not found.speaks
    assert found.row()["provenance"] == "" and found.row()["signature"] == "absent"


# ---- what was made from what
def test_what_a_model_made_stays_so_when_an_editor_opens_it(files, bare):
    editor = signatory("Toy Editors")
    found = read_provenance(signed(bare["JPEG"], opened_manifest(), editor, parent=files["JPEG"]))
    assert found.claims_model and found.signer.startswith("Toy Editors") and "created" in found.earlier[0].actions
    broken = with_a_bit_changed(files["JPEG"])
    found = read_provenance(signed(bare["JPEG"], opened_manifest(), editor, parent=broken))
    assert found.state == "untrusted" and found.claims_model is None and not found.claims and not found.counted


def store(relationship, source_type, failure=None):
    "The JSON of a file with an ingredient."
    action = dict(action="c2pa.created", digitalSourceType=IPTC + source_type)
    inner = dict(assertions=[dict(label="c2pa.actions.v2", data=dict(actions=[action]))])
    results = dict(activeManifest=dict(failure=[dict(code=failure)] if failure else []))
    ingredient = dict(relationship=relationship, active_manifest="b", validation_results=results)
    outer = dict(ingredients=[ingredient], assertions=[])
    return dict(active_manifest="a", validation_state="Valid", manifests=dict(a=outer, b=inner))


@pytest.mark.parametrize(
    "relationship, source_type, failure, claims_model",
    [
        ("parentOf", "trainedAlgorithmicMedia", None, True),
        ("parentOf", "digitalCapture", None, False),
        ("parentOf", "trainedAlgorithmicMedia", "signingCredential.untrusted", True),
        ("parentOf", "trainedAlgorithmicMedia", "assertion.dataHash.mismatch", None),
        ("componentOf", "trainedAlgorithmicMedia", None, True),
        ("componentOf", "digitalCapture", None, None),
        ("inputTo", "digitalCapture", None, None),
        ("inputTo", "trainedAlgorithmicMedia", None, None),
    ],
)
def test_claims_of_ingredients(relationship, source_type, failure, claims_model):
    assert from_store(store(relationship, source_type, failure)).claims_model is claims_model


def test_a_part_is_said_to_be_one():
    found = from_store(store("componentOf", "trainedAlgorithmicMedia"))
    (claim,) = found.counted
    assert found.earlier[0].is_part and "The credential of a part" in found.says
    assert claim.about == "part" and claim.says == "a part of it made by a trained algorithm"


@pytest.mark.parametrize("source_type, claims_model", [("digitalCapture", None), ("trainedAlgorithmicMedia", True)])
def test_what_an_action_has_placed_is_a_part(source_type, claims_model):
    "A painting into which somebody put a photograph is not captured by a camera."
    kinds = {"c2pa.created": "digitalCreation", "c2pa.placed": source_type}
    done = [dict(action=action, digitalSourceType=f"{IPTC}{kind}") for action, kind in kinds.items()]
    own = dict(assertions=[dict(label="c2pa.actions.v2", data=dict(actions=done))])
    found = from_store(dict(active_manifest="a", validation_state="Valid", manifests=dict(a=own)))
    assert found.claims_model is claims_model and f"a part of it {SOURCE_TYPES[source_type]}" in found.says


@pytest.mark.parametrize(
    "source_type, claims_model",
    [
        ("trainedAlgorithmicMedia", True),
        ("compositeWithTrainedAlgorithmicMedia", True),
        ("digitalCapture", False),
        ("computationalCapture", False),
        ("algorithmicMedia", None),
        ("humanEdits", None),
    ],
)
def test_what_each_kind_of_source_claims(bare, toy, source_type, claims_model):
    found = read_provenance(signed(bare["JPEG"], manifest(source_type, "Toy Camera"), toy))
    assert found.state == "untrusted" and found.claims_model is claims_model
    assert SOURCE_TYPES[source_type] in found.says and found.tools == ("Toy Camera 1.0",)


# ---- whose word it is
@pytest.fixture(scope="module")
def editor():
    "On the trust list of `trusting`."
    return signatory("Known Editors", "Editor")


@pytest.fixture(scope="module")
def maker():
    "A camera maker that is on the list as well."
    return signatory("Known Cameras", "Camera")


@pytest.fixture
def trusting(editor, maker, tmp_path, monkeypatch):
    (tmp_path / "list.pem").write_bytes(editor.authority + maker.authority)
    monkeypatch.setenv(TRUST_VARIABLE, str(tmp_path / "list.pem"))


@pytest.fixture(scope="module")
def shots(toy, maker, bare):
    "By whom: an image that says it is from a camera, and one that says a model made it."
    kinds = dict(camera="digitalCapture", model="trainedAlgorithmicMedia")
    signers = dict(forged=toy, genuine=maker)
    return {
        (who, what): signed(bare["JPEG"], manifest(kind, f"Tool of {who}"), by)
        for who, by in signers.items()
        for what, kind in kinds.items()
    }


def opened(bare, by, parent=None, **more):
    return signed(bare["JPEG"], opened_manifest("Editing Tool"), by, parent=parent, **more)


def columns(data):
    "The row of a file as CSV and JSON give it."
    verdict = BrightDetector().check(data, name="a.jpg")
    record = json.loads(row_text(verdict, "json"))
    (cells,) = csv.reader([row_text(verdict)])
    row = dict(zip(ROW_COLUMNS, cells, strict=True))
    names = ("signature", "signer", "source_types", "claim_signature", "earlier")
    assert {name: record[name] for name in names} == {name: row[name] for name in names}
    return record


def said_of(found, signer):
    "The sentences of `says` from the one that names a signer up to the next credential."
    (sentences,) = [part for part in re.split("(?=An earlier|The credential of)", found.says) if signer in part]
    return sentences


# an editor records how it judged what it opened by a list of its own: none, the right one, or one with the forger on it
@pytest.mark.parametrize("record", ["no list", "the same list", "the forger is on it"])
def test_a_trusted_editor_vouches_for_no_camera_that_was_made_up(bare, toy, editor, maker, shots, trusting, record):
    known = {"no list": b"", "the same list": maker.authority, "the forger is on it": toy.authority}[record]
    file = opened(bare, editor, shots["forged", "camera"], known=known)
    found = read_provenance(file)
    assert (found.state, found.signer) == ("trusted", "Known Editors (Editor)")
    assert found.claims_model is None and not found.claims and not found.counted
    own, rest = found.says.split("An earlier credential", 1)
    assert "on the trust list" in own and "camera" not in own and "opened, edited" in own
    assert rest.startswith(", in the name of “Toy Studio (Toy Signer)”, says: captured by a camera")
    assert "Nothing shows that someone on the trust list vouches" in rest
    row = columns(file)
    assert row["claims_model"] is None and row["claim_signature"] == row["source_types"] == ""
    assert row["earlier"] == "untrusted “Toy Studio (Toy Signer)”: digitalCapture"


@pytest.mark.parametrize("record", ["no list", "the same list"])
def test_a_known_camera_below_a_known_editor_is_believed(bare, editor, maker, shots, trusting, record):
    known = maker.authority if record == "the same list" else b""
    file = opened(bare, editor, shots["genuine", "camera"], known=known)
    found = read_provenance(file)
    assert found.state == "trusted" and found.claims_model is False and "Nothing shows" not in found.says
    assert "signed by “Known Cameras (Camera)”, who is on the trust list, says: captured by a camera" in found.says
    row = columns(file)
    assert row["claims_model"] is False and row["claim_signature"] == "trusted"
    assert row["earlier"] == "trusted “Known Cameras (Camera)”: digitalCapture"


def test_a_model_named_by_someone_unknown_is_kept_under_its_own_signer(bare, editor, shots, trusting):
    file = opened(bare, editor, shots["forged", "model"])
    found = read_provenance(file)
    assert found.state == "trusted" and found.claims_model is True and found.claim_signature == "untrusted"
    assert "Nothing shows that someone on the trust list vouches" in said_of(found, "Toy Studio")
    row = columns(file)
    assert row["claims_model"] is True and row["claim_signature"] == "untrusted" and row["source_types"] == ""


def test_two_ingredients_have_a_state_each(bare, editor, maker, shots, trusting):
    part = shots["forged", "model"]
    file = opened(bare, editor, shots["genuine", "camera"], parts=(part,), known=maker.authority)
    found = read_provenance(file)
    assert [(one.state, one.is_part) for one in found.earlier] == [("trusted", False), ("untrusted", True)]
    assert found.claims_model is True and found.claim_signature == "untrusted", "the model speaks against it"
    assert "Nothing shows" in said_of(found, "Toy Studio") and "Nothing shows" not in said_of(found, "Known Cameras")
    assert columns(file)["earlier"] == (
        "trusted “Known Cameras (Camera)”: digitalCapture; "
        "untrusted “Toy Studio (Toy Signer)” (a part): trainedAlgorithmicMedia"
    )
    file = opened(bare, editor, shots["genuine", "model"], parts=(shots["forged", "camera"],), known=maker.authority)
    assert read_provenance(file).claim_signature == "trusted"


@pytest.mark.parametrize("what", ["pixels", "manifest"])
@pytest.mark.parametrize("kind", ["camera", "model"])
def test_an_ingredient_that_was_broken_is_said_to_be(bare, editor, maker, shots, trusting, what, kind):
    file = shots["genuine", kind]
    broken = with_a_bit_changed(file, -200 if what == "pixels" else file.index(b"Tool of genuine"))
    found = read_provenance(opened(bare, editor, broken, known=maker.authority))
    assert found.state == "trusted" and found.claims_model is None and found.claim_signature == ""
    (one,) = found.earlier
    assert one.state == "invalid" and "Known Cameras" in one.signer
    assert "counts for nothing" in said_of(found, "Known Cameras") and "Mismatch" in one.reason.title()
    assert one.brief.startswith("invalid “Known Cameras (Camera)”")


@pytest.mark.parametrize("kind", ["camera", "model"])
def test_in_a_file_that_was_changed_no_earlier_credential_counts(bare, editor, maker, shots, trusting, kind):
    file = opened(bare, editor, shots["genuine", kind], known=maker.authority)
    found = read_provenance(with_a_bit_changed(file))
    assert found.state == "invalid" and found.claims_model is None and not found.counted
    assert [one.state for one in found.earlier] == ["invalid"] and "trust list" not in found.says
    assert found.says.count("counts for nothing") == 2


def test_a_credential_that_was_glued_on_by_someone_unknown_is_not_washed(bare, toy, editor, maker, shots, trusting):
    "A known camera's credential, put under another image by a forger, and then opened by a known editor."
    glued = opened(bare, toy, shots["genuine", "camera"], known=maker.authority)
    assert read_provenance(glued).claim_signature == "untrusted"
    found = read_provenance(opened(bare, editor, glued, known=maker.authority))
    assert found.state == "trusted" and [one.state for one in found.earlier] == ["untrusted", "untrusted"]
    assert found.claims_model is None and "who is on the trust list" not in found.says.split("An earlier", 1)[1]


def test_a_forger_that_was_believed_by_another_forger_is_not_known(bare, toy, editor, shots, trusting):
    "The failure is in a record within a record, and in nothing that c2pa finds now."
    believed = opened(bare, signatory("Friends"), shots["forged", "camera"], known=toy.authority)
    found = read_provenance(opened(bare, editor, believed))
    assert [one.state for one in found.earlier] == ["untrusted", "untrusted"] and found.claims_model is None


def test_the_page_and_the_terminal_say_whose_word_it_is(bare, editor, shots, trusting):
    from fakeface.cli.check import told

    file = opened(bare, editor, shots["forged", "camera"])
    detector = BrightDetector()
    verdict = detector.check(file, name="a.jpg")
    card = Cards(detector).look("1", "a.jpg", file)
    for said in (told(verdict), card["declared"]):
        assert "An earlier credential, in the name of “Toy Studio (Toy Signer)”, says: captured by a camera" in said
        assert "Nothing shows that someone on the trust list vouches" in said


KNOWN, UNKNOWN, BROKEN = "signingCredential.trusted", "signingCredential.untrusted", "claimSignature.mismatch"
EXPIRED = "signingCredential.expired"
NOW_IN_TIME = [("success", "timeStamp.trusted", "camera"), ("success", KNOWN, "camera")]


def chained(own=(), recorded=(), within=()):
    "The JSON of a known editor's file: opened from a camera's; each argument lists (list, code, manifest)."

    def results(listed, active):
        lists = {}
        for kind, code, about in listed:
            lists.setdefault(kind, []).append(dict(code=code, url=f"self#jumbf=/c2pa/{about}/c2pa.signature"))
        if active:
            return dict(activeManifest=lists)
        return dict(ingredientDeltas=[dict(ingredientAssertionURI="x", validationDeltas=lists)])

    parent = dict(relationship="parentOf", active_manifest="camera")
    parent["validation_results"] = results(recorded, True) | results(within, False)
    action = dict(action="c2pa.created", digitalSourceType=IPTC + "digitalCapture")
    camera = dict(assertions=[dict(label="c2pa.actions.v2", data=dict(actions=[action]))])
    manifests = dict(editor=dict(ingredients=[parent]), camera=camera)
    judged = results([("success", KNOWN, "editor")], True) | results(own, False)
    return dict(active_manifest="editor", validation_state="Valid", validation_results=judged, manifests=manifests)


@pytest.mark.parametrize(
    "own, recorded, within, state",
    [
        ([("success", KNOWN, "camera")], [], [], "trusted"),
        ([("success", KNOWN, "camera")], [("failure", UNKNOWN, "camera")], [], "trusted"),
        ([], [("success", KNOWN, "camera")], [], "trusted"),
        ([], [], [], "untrusted"),
        ([], [("success", KNOWN, "other")], [], "untrusted"),
        ([("failure", UNKNOWN, "camera")], [("success", KNOWN, "camera")], [], "untrusted"),
        ([], [("success", KNOWN, "camera")], [("failure", UNKNOWN, "camera")], "untrusted"),
        ([], [("success", KNOWN, "camera"), ("success", UNKNOWN, "camera")], [], "untrusted"),
        ([("success", KNOWN, "camera")], [("informational", BROKEN, "camera")], [], "invalid"),
        ([("success", KNOWN, "camera")], [], [("failure", BROKEN, "camera")], "invalid"),
        (
            [("success", KNOWN, "camera")],
            [("failure", UNKNOWN, "other")] * 99 + [("failure", BROKEN, "camera")],
            [],
            "invalid",
        ),
        # its certificate has expired, and the editor did not know the authority of its time stamp
        (NOW_IN_TIME, [("failure", EXPIRED, "camera"), ("failure", UNKNOWN, "camera")], [], "trusted"),
        (NOW_IN_TIME, [("informational", EXPIRED, "camera")], [], "trusted"),
        (NOW_IN_TIME, [("failure", EXPIRED, "camera"), ("failure", BROKEN, "camera")], [], "invalid"),
        ([*NOW_IN_TIME, ("failure", EXPIRED, "camera")], [("failure", EXPIRED, "camera")], [], "invalid"),
        # that one alone does not show that it was stamped in time
        (NOW_IN_TIME[:1], [("failure", EXPIRED, "camera")], [], "invalid"),
        (NOW_IN_TIME[1:], [("failure", EXPIRED, "camera")], [], "invalid"),
        # nor does what the editor recorded, or what is known of another one
        ([], [*NOW_IN_TIME, ("failure", EXPIRED, "camera")], [], "invalid"),
        ([("success", code, "other") for _, code, _ in NOW_IN_TIME], [("failure", EXPIRED, "camera")], [], "invalid"),
    ],
)
def test_what_an_ingredient_is_worth_by_what_was_found_and_recorded(own, recorded, within, state):
    found = from_store(chained(own, recorded, within))
    assert found.state == "trusted" and [one.state for one in found.earlier] == [state]
    assert found.claims_model is (False if state == "trusted" else None)


def test_behind_a_link_that_does_not_hold_nothing_is_followed():
    found = chained([("success", KNOWN, "camera")], [("failure", BROKEN, "camera")])
    behind = dict(relationship="parentOf", active_manifest="behind")
    found["manifests"] |= dict(behind=found["manifests"]["camera"], camera=dict(ingredients=[behind]))
    assert [one.state for one in from_store(found).earlier] == ["invalid"]
    found = chained([("success", KNOWN, "camera"), ("success", KNOWN, "behind")])
    found["manifests"] |= dict(behind=found["manifests"]["camera"], camera=dict(ingredients=[behind]))
    assert [one.state for one in from_store(found).earlier] == ["trusted", "trusted"]


def test_what_of_an_ingredient_is_lost_is_said():
    gone = dict(relationship="parentOf", validation_status=[dict(code="claim.missing")])
    bare_one = dict(relationship="parentOf")
    manifests = dict(a=dict(ingredients=[gone, bare_one, gone | dict(active_manifest="b")]))
    found = from_store(dict(active_manifest="a", validation_state="Trusted", manifests=manifests))
    assert [one.state for one in found.earlier] == ["invalid", "invalid"] and "claim.missing" in found.says


def test_many_earlier_credentials_are_counted_and_a_model_is_said_first():
    kinds = ["digitalCapture"] * 9 + ["trainedAlgorithmicMedia"]
    manifests = {}
    for name, kind in enumerate(kinds):
        action = dict(action="c2pa.created", digitalSourceType=IPTC + kind, softwareAgent=EVIL)
        assertion = dict(label="c2pa.actions", data=dict(actions=[action]))
        manifests[str(name)] = dict(assertions=[assertion], signature_info=dict(issuer=EVIL))
    made_from = [dict(relationship="parentOf", active_manifest=name) for name in manifests]
    manifests["a"] = dict(ingredients=made_from)
    found = from_store(dict(active_manifest="a", validation_state="Trusted", manifests=manifests))
    assert len(found.earlier) == 10 and found.claims_model is True
    first = found.says.split("An earlier")[1]
    assert "made by a trained algorithm" in first and "7 more earlier credentials" in found.says
    assert_harmless(found)


# ---- hostile
def assert_harmless(found):
    "Text that a terminal, a CSV and a page can show; bounded."
    for text in (found.says, *found.row().values()):
        text = str(text)
        assert text.isprintable() and len(text) < 2500, text


def test_hostile_names_are_plain_and_short(bare):
    by = signatory(EVIL[:40].replace("\x00", ""), "x\x1b]0;t\x07")
    claim = manifest("trainedAlgorithmicMedia", EVIL.replace("\x00", ""))
    claim["title"] = EVIL
    found = read_provenance(signed(bare["JPEG"], claim, by))
    assert found.state == "untrusted" and "<img src=x" in found.says, "markup stays text; who shows it escapes it"
    assert_harmless(found)


OURS = "Verified by fakeface: real"
ENDS_THE_MARKS = f"” and unchanged since. {OURS}. The rest is “"


@pytest.mark.parametrize("name", [OURS, ENDS_THE_MARKS])
def test_no_name_can_be_taken_for_our_words(bare, name):
    "Names, programs, actions and kinds of source stand in marks that nothing within can end."
    from fakeface.cli.check import told

    claim = manifest(tool=name)
    claim["assertions"][0]["data"]["actions"].append({"action": f"c2pa.{OURS}"})
    detector = BrightDetector()
    file = signed(bare["PNG"], claim, signatory(name, "Toy Signer"))
    verdict = detector.check(file, name="a.png")
    assert verdict.provenance.signer == f"{name} (Toy Signer)", "the column has it as it is"
    assert json.loads(row_text(verdict, "json"))["signer"].endswith("(Toy Signer)")
    card = Cards(detector).look("1", "a.png", file)
    for said in (verdict.provenance.says, told(verdict), card["declared"]):
        assert said.count(OURS) >= 3
        inside = re.findall("“[^“”]*”", said)
        assert said.count("“") == said.count("”") == len(inside) and OURS not in re.sub("“[^“”]*”", "", said), said


def test_no_unsigned_text_can_be_taken_for_our_words():
    exif = Image.Exif()
    exif[0x10F], exif[0x110], exif[0x131] = "Maker", OURS, ENDS_THE_MARKS
    said = read_provenance(image_bytes(portrait(), "JPEG", exif=exif)).says
    assert OURS in said and OURS not in re.sub("“[^“”]*”", "", said), said
    named = read_provenance(png_with(**{"XML:com.adobe.xmp": f"<x>{IPTC}Verified_by_fakeface_real</x>"})).says
    assert "“Verified_by_fakeface_real”" in named


def hostile_manifests(file):
    "A signed JPEG with what can go wrong in the bytes of its manifest."
    # the box inside the first: JPEG's own segments hold the outer one, whose length c2pa does not need
    start = file.index(b"jumd") - 4
    inside = file.index(b"c2pa.assertions")
    end = file.index(b"c2pa.signature")
    yield "length of a box", file[:start] + b"\xff\xff\xff\xff" + file[start + 4 :]
    yield "length of nothing", file[:start] + bytes(4) + file[start + 4 :]
    yield "length in 64 bits", file[:start] + struct.pack(">I", 1) + file[start + 4 :]
    yield "zeros", file[:inside] + bytes(60) + file[inside + 60 :]
    yield "ones", file[:inside] + b"\xff" * 60 + file[inside + 60 :]
    yield "CBOR of a huge list", file[: inside + 120] + b"\x9b" + b"\xff" * 8 + file[inside + 129 :]
    yield "CBOR that nests", file[: inside + 120] + b"\x81" * 900 + file[inside + 1020 :]
    yield "torn", file[: (inside + end) // 2]
    yield "doubled", file[:inside] + file[start:inside] + file[inside:]


def test_hostile_manifests_neither_raise_nor_count(files):
    seen = {}
    for name, data in hostile_manifests(files["JPEG"]):
        began = time.monotonic()
        found = read_provenance(data)
        assert time.monotonic() - began < 5, name
        assert found.claims_model is None and found.state in ("unreadable", "invalid"), (name, found)
        assert_harmless(found)
        seen[name] = found.state
    assert "unreadable" in seen.values(), "some cannot even be read"


@pytest.mark.parametrize("count", [30, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_damaged_manifests(files, name, count):
    "A byte of the manifest at a time: whatever c2pa makes of it, an answer comes, and never one of a trusted signer."
    import random

    draw = random.Random(7)
    start = files[name].index(b"jumb")
    states = set()
    for _ in range(count):
        data = bytearray(files[name])
        for _ in range(draw.choice((1, 3, 20))):
            data[draw.randrange(start, min(start + 4000, len(data)))] = draw.randrange(256)
        found = read_provenance(bytes(data))
        assert_harmless(found)
        states.add(found.state)
    assert {"unreadable", "invalid"} <= states <= {"unreadable", "invalid", "untrusted", "absent", "not checked"}


@pytest.mark.parametrize(
    "odd",
    [
        {},
        dict(active_manifest=["a"], manifests=[1]),
        dict(active_manifest="a", manifests=dict(a=[])),
        dict(active_manifest="a", manifests=dict(a=dict(assertions={}, ingredients="x", signature_info=[]))),
        dict(active_manifest="a", manifests=dict(a=dict(assertions=[dict(label=7, data="x")])), validation_results=[3]),
    ],
)
def test_json_of_any_shape(odd):
    found = from_store(odd)
    assert found.state in ("unreadable", "invalid") and found.claims_model is None
    assert_harmless(found)


def test_ingredients_in_a_circle_end():
    loop = dict(ingredients=[dict(relationship="parentOf", active_manifest=name) for name in "ab"])
    assert from_store(dict(active_manifest="a", manifests=dict(a=loop, b=loop))).state == "invalid"


def test_lists_without_end_are_cut():
    action = dict(action="c2pa.edited", digitalSourceType=IPTC + "digitalCapture", softwareAgent=EVIL)
    actions = [action | dict(action=f"c2pa.{i}" + EVIL) for i in range(10_000)]
    many = dict(assertions=[dict(label="c2pa.actions", data=dict(actions=actions))])
    found = from_store(dict(active_manifest="a", validation_state="Valid", manifests=dict(a=many)))
    assert len(found.actions) <= 32 and found.claims_model is False
    assert_harmless(found)


def test_a_slow_one_is_given_up_and_ended(files, bare, monkeypatch, children):
    "Nothing of it goes on, no thread and no process; and a file without a credential is not looked into."
    threads, processes = threading.active_count(), children()
    monkeypatch.setattr(room, "MOST_SECONDS", 0.5)
    monkeypatch.setattr(room, "_READER", "while True: pass")
    began = time.monotonic()
    found = read_provenance(files["JPEG"])
    assert time.monotonic() - began < 3 and found.state == "not checked" and "seconds" in found.reason
    assert threading.active_count() == threads
    assert children() <= processes
    assert all(read_provenance(data) == Provenance("absent") for data in bare.values())


def test_a_reader_that_dies_is_a_sentence(files, monkeypatch):
    monkeypatch.setattr(room, "_READER", "import os; os.abort()")
    found = read_provenance(files["PNG"])
    assert found.state == "unreadable" and "the process that read it died" in found.says


def with_other_content(boxes, label, content):
    "JUMBF boxes with other CBOR in the box of this label."
    made, at = b"", 0
    while at < len(boxes):
        length, kind = struct.unpack_from(">I4s", boxes, at)
        inner, at = boxes[at + 8 : at + length], at + length
        if kind == b"jumb":
            about = inner[: int.from_bytes(inner[:4], "big")]
            new = struct.pack(">I4s", len(content) + 8, b"cbor") + content
            inner = about + (new if label in about else with_other_content(inner[len(about) :], label, content))
        made += struct.pack(">I4s", len(inner) + 8, kind) + inner
    return made


def png_with_other_content(file, label, content):
    "A signed PNG with other CBOR in the box of this label of its credential."
    start = file.index(b"caBX") - 4
    length = int.from_bytes(file[start : start + 4], "big")
    kept = with_other_content(file[start + 8 : start + 8 + length], label, content)
    return file[:start] + png_chunk(b"caBX", kept) + file[start + 12 + length :]


def test_what_c2pa_quotes_of_a_file_cannot_be_taken_for_our_words(files, monkeypatch):
    "It says which text it found where it looked for a list."
    other = png_with_other_content(files["PNG"], b"c2pa.actions", b"\xa1\x67actions\x63a b")
    with pytest.raises(room._Refused, match='invalid type: string "a b"'):
        room._store(io.BytesIO(other), "")

    def refuses(*_):
        raise room._Refused(f'Decoding: invalid type: string "{ENDS_THE_MARKS}"')

    monkeypatch.setattr(room, "_store", refuses)
    found = read_provenance(files["PNG"])
    assert found.state == "unreadable" and OURS in found.says
    assert OURS not in re.sub("“[^“”]*”", "", found.says), found.says


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does not bound what a process takes")
def test_a_credential_of_many_small_values_takes_no_more_memory_than_it_may(bare):
    "Two bytes of CBOR are some 300 of c2pa's: before, a file of 2.7 kB (compressed) took 4 GB."
    chosen = manifest()
    chosen["assertions"].append(dict(label="com.example.many", data=dict(v=[1]), created=True))
    file = signed(bare["PNG"], chosen, signatory())
    count = 4_000_000
    many = b"\xa1\x61v\x9a" + struct.pack(">I", count) + b"\x81\0" * count
    found = read_provenance(png_with_other_content(file, b"com.example.many", many))
    assert found.state == "unreadable" and "MB are not enough" in found.reason, found


def test_a_reader_ends_by_itself_when_nobody_waits(files):
    reader = room._READER.replace("import c2pa", "time.sleep(60)").replace(
        "import faulthandler", "import time, faulthandler"
    )
    asked = pickle.dumps((sys.path, 1.0, 2**30, {})) + files["PNG"]
    began = time.monotonic()
    subprocess.run([sys.executable, "-I", "-c", reader], input=asked, timeout=30, capture_output=True)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("where", ["gone", "large"])
def test_no_credential_is_claimed_where_none_was_seen(bare, tmp_path, monkeypatch, where):
    path = tmp_path / "a.png"
    if where == "large":
        path.write_bytes(bare["PNG"])
        monkeypatch.setattr(room, "MOST_BYTES", 100)
    found = read_provenance(path)
    assert "has a content credential" not in found.says and found.state == (
        "absent" if where == "large" else "not checked"
    )


@pytest.mark.parametrize(
    "error", [MemoryError(), RecursionError("deep"), ValueError(EVIL), OSError(), SystemError("x")]
)
def test_whatever_is_raised_becomes_a_sentence(files, monkeypatch, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(room, "_store", fails)
    found = read_provenance(files["JPEG"])
    assert found.state == "unreadable" and found.claims_model is None
    assert_harmless(found)


def test_a_file_over_the_limit_is_not_verified(files, monkeypatch):
    monkeypatch.setattr(room, "MOST_BYTES", 1000)
    found = read_provenance(files["JPEG"])
    assert found.state == "not checked" and "1,000 bytes" in found.says and found.claims_model is None


def test_a_large_file_waits_for_the_memory_of_others(files, monkeypatch):
    "What reading it takes is part of the budget of large images."
    monkeypatch.setattr(room, "_COPIES", 10**6)
    monkeypatch.setattr(memory, "MEMORY_WAIT", 0.1)
    monkeypatch.setenv("FAKEFACE_MEMORY_MB", "100")
    with memory.held_memory(), ThreadPoolExecutor(1) as other:
        memory.take_memory(20_000_000)
        found = other.submit(read_provenance, files["JPEG"]).result()
    assert found.state == "not checked" and "which other images have been using" in found.reason
    assert read_provenance(files["JPEG"]).state == "untrusted"


def test_words_are_looked_for_in_little_memory(tmp_path):
    path = tmp_path / "large.jpg"
    for place in (2**20 - 2, 2**20, 2**25 - 4):
        path.write_bytes(b"")
        with open(path, "r+b") as file:
            file.write(b"jumb")
            file.truncate(2**26)
            tracemalloc.start()
            assert not room._has_words(file)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            file.seek(place)
            file.write(b"c2pa")
            assert room._has_words(file) and peak < 2**23


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="this system has no endless file")
def test_an_endless_trust_list_is_refused(monkeypatch):
    monkeypatch.setenv(TRUST_VARIABLE, "/dev/zero")
    with pytest.raises(room.ProvenanceError, match="more than 524,288 bytes"):
        room.trust_list()


def test_json_over_the_limit_is_not_read(files, monkeypatch):
    monkeypatch.setattr(room, "_MOST_TEXT", 100)
    assert "longer than 100 characters" in read_provenance(files["JPEG"]).says


def test_a_file_that_is_not_there_or_no_image(tmp_path):
    assert read_provenance(tmp_path / "gone.jpg").state == "not checked"
    for data in (b"", b"hello", b"\xff\xd8\xff"):
        assert read_provenance(data).claims_model is None


@pytest.fixture
def listener():
    "An HTTP server that counts what is asked of it."
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/m.c2pa", asked
    server.shutdown()
    server.server_close()


def test_nothing_is_fetched(bare, toy, listener):
    address, asked = listener
    file = signed(bare["JPEG"], manifest(), toy, kept_at=address)
    found = read_provenance(file)
    assert found.state == "not checked" and "nothing is downloaded" in found.says and found.claims_model is None
    assert not asked
    with c2pa.Context.from_dict({"verify": {"remote_manifest_fetch": True}}) as context:
        with pytest.raises(c2pa.C2paError):
            c2pa.Reader.try_create(None, io.BytesIO(file), context=context)
    assert asked == ["/m.c2pa"], "the same file makes c2pa ask, where it may"


def test_many_threads_agree(files):
    data = [files["JPEG"], with_a_bit_changed(files["JPEG"]), files["PNG"]] * 16
    with ThreadPoolExecutor(8) as pool:
        states = [found.state for found in pool.map(read_provenance, data)]
    assert states == ["untrusted", "invalid", "untrusted"] * 16


# ---- unsigned
def png_with(**texts):
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    return image_bytes(portrait(), "PNG", pnginfo=info)


@pytest.mark.parametrize(
    "texts, says",
    [
        (dict(parameters="a man\nSteps: 20, Sampler: Euler a"), "settings of Stable Diffusion web UI"),
        (dict(prompt='{"3": {"class_type": "KSampler"}}', workflow='{"nodes": []}'), "settings of ComfyUI"),
        (dict(workflow='{"nodes": []}'), "settings of ComfyUI"),
        (dict(invokeai_metadata="{}"), "settings of InvokeAI"),
    ],
)
def test_settings_of_a_generator(texts, says):
    found = read_provenance(png_with(**texts))
    assert found.state == "absent" and found.claims_model is True and found.speaks
    assert found.claims == (Claim("text", says, "model"),)
    assert says in found.says and "Anyone can write that" in found.says


def xmp(text):
    return image_bytes(portrait(), "JPEG", xmp=f"<x:xmpmeta>{text}</x:xmpmeta>".encode())


@pytest.mark.parametrize("form", ['Iptc4xmpExt:DigitalSourceType="{}"', "<Iptc4xmpExt:DigitalSourceType>{}</x>"])
@pytest.mark.parametrize("prefix", [IPTC, ""])
@pytest.mark.parametrize("source_type, claims_model", [("trainedAlgorithmicMedia", True), ("digitalCapture", False)])
def test_source_type_in_xmp(form, prefix, source_type, claims_model):
    found = read_provenance(xmp(form.format(prefix + source_type)))
    assert found.claims_model is claims_model and found.source_types == (source_type,)
    assert [claim.source for claim in found.claims] == ["XMP"] and "Unsigned" in found.says


def test_maker_and_software_in_exif():
    exif = Image.Exif()
    exif[0x10F], exif[0x110], exif[0x131] = "Canon", "EOS 5D", "darktable 4.6"
    found = read_provenance(image_bytes(portrait(), "JPEG", exif=exif))
    assert "camera “Canon EOS 5D”; software “darktable 4.6”" in found.says
    assert found.claims_model is None, "any editor copies EXIF data along"
    exif[0x131] = "Midjourney v6"
    assert read_provenance(image_bytes(portrait(), "JPEG", exif=exif)).claims_model is True


def test_unsigned_claims_stay_beside_a_broken_signature(toy):
    file = signed(png_with(parameters="a man\nSteps: 20, Sampler: Euler a"), manifest("digitalCapture"), toy)
    assert read_provenance(file).claims_model is True
    broken = read_provenance(with_a_bit_changed(file, file.index(b"IDAT") + 20))
    assert broken.state == "invalid" and broken.counted == (
        Claim("text", "settings of Stable Diffusion web UI", "model"),
    )


# ---- without the library
def test_without_the_library_it_is_said_and_nothing_is_claimed(files, bare, tmp_path):
    (tmp_path / "signed.jpg").write_bytes(files["JPEG"])
    (tmp_path / "bare.jpg").write_bytes(bare["JPEG"])
    program = (
        "import sys; sys.modules['c2pa'] = None\n"
        "from fakeface.images.provenance import read_provenance\n"
        "for name in ('signed.jpg', 'bare.jpg'):\n"
        "    found = read_provenance(name); print(found.state, found.claims_model, found.speaks, found.says, sep='|')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = [line.split("|") for line in done.stdout.splitlines()]
    assert [line[:3] for line in lines] == [["not checked", "None", "True"], ["absent", "None", "False"]]
    assert all(INSTALL in line[3] for line in lines)


def test_the_room_brings_nothing_heavy():
    heavy = {"c2pa", "torch", "pandas", "cryptography", "requests"}
    program = f"import sys, fakeface.images.provenance; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- beside the score, never in it
def with_a_broken_manifest(data, name):
    "A byte of the manifest changed; the file is as whole as before for whoever shows the image."
    changed = with_a_bit_changed(data, data.index(b"Toy Diffusion"))
    if name != "PNG":
        return changed
    start = data.index(b"caBX") - 4
    (length,) = struct.unpack(">I", data[start : start + 4])
    kept = changed[start + 8 : start + 8 + length]
    return data[:start] + png_chunk(b"caBX", kept) + data[start + 12 + length :]


@pytest.mark.parametrize("name", FORMATS)
def test_score_and_label_are_the_same_with_and_without(files, bare, name):
    detector = BrightDetector()
    without = detector.check(bare[name], stability=True)
    for data, claims_model in ((files[name], True), (with_a_broken_manifest(files[name], name), None)):
        verdict = detector.check(data, stability=True)
        assert verdict.provenance.claims_model is claims_model and verdict.provenance.speaks
        assert (verdict.p_fake, verdict.label) == (without.p_fake, without.label)
        assert verdict.stability == without.stability and verdict.words() == without.words()
    assert without.provenance.claims_model is None and not without.provenance.speaks


def test_every_face_carries_it_and_an_image_without_a_file_has_none(files):
    detector = BrightDetector()
    assert [one.provenance.claims_model for one in detector.check_faces(files["PNG"])] == [True, True]
    verdict = detector.check(portrait())
    assert verdict.provenance == Provenance() and verdict.row()["signature"] == ""


def test_rows_carry_it_as_csv_and_json(files):
    detector = BrightDetector()
    verdict = detector.check(files["JPEG"], name="a.jpg")
    record = json.loads(row_text(verdict, "json"))
    (cells,) = csv.reader([row_text(verdict)])
    row = dict(zip(ROW_COLUMNS, cells, strict=True))
    assert record["claims_model"] is True and row["claims_model"] == "True"
    expected = dict(signature="untrusted", signer="Toy Studio (Toy Signer)", source_types="trainedAlgorithmicMedia")
    assert expected.items() <= record.items() and expected.items() <= row.items()
    assert record["evidence"] == "C2PA: made by a trained algorithm" and record["actions"] == "created"
    nothing = json.loads(row_text(detector.check(portrait()), "json"))
    assert nothing["claims_model"] is None and nothing["provenance"] == ""


def test_terminal_says_it_on_the_line_before_the_score(files):
    from fakeface.cli.check import told

    detector = BrightDetector()
    claim, score = told(detector.check(files["JPEG"], name="a.jpg")).splitlines()[:2]
    assert claim.startswith(
        "a.jpg: Signed in the name of “Toy Studio (Toy Signer)” and unchanged since"
    ) and score.startswith("a.jpg: Unsure: p_fake")
    lines = "\n".join(map(told, detector.check_faces(files["JPEG"], name="a.jpg"))).splitlines()
    assert sum("Signed in the name of" in line for line in lines) == 1, "once for all faces"
    assert told(detector.check(image_bytes(portrait(), "JPEG"), name="a.jpg")).startswith("a.jpg: Unsure")


def test_the_card_has_it_as_text(bare):
    file = signed(bare["JPEG"], manifest(tool="<script>alert(1)</script>"), signatory("<b>Studio</b>"))
    cards = Cards(BrightDetector())
    card = cards.look("1", "a.jpg", file)
    assert "<b>Studio</b>" in card["declared"], "text; the page puts it into text nodes only"
    assert cards.look("2", "b.jpg", bare["JPEG"])["declared"] == ""
    assert cards.look("2", "b.jpg", bare["JPEG"])["label"] == card["label"]


# ---- the oracle
def test_the_damage_is_where_the_tests_say(bare):
    "PNG: the byte that `with_a_bit_changed` changes lies in the image's data, whose checksum then fails."
    data = bare["PNG"]
    start = data.index(b"IDAT") - 4
    (length,) = struct.unpack(">I", data[start : start + 4])
    kept = data[start + 4 : start + 8 + length]
    assert struct.unpack(">I", data[start + 8 + length : start + 12 + length])[0] == zlib.crc32(kept)
    assert zlib.crc32(with_a_bit_changed(kept, 20)) != zlib.crc32(kept)


CHANGED = "changed after it was signed"
# codes of the C2PA specification and of its library, and what may be said of them
CODES = {
    CHANGED: """
        assertion.dataHash.mismatch assertion.boxesHash.mismatch assertion.bmffHash.mismatch
        assertion.collectionHash.mismatch assertion.multiAssetHash.mismatch assertion.hashedURI.mismatch
        hashedURI.mismatch assertion.alternativeContentRepresentation.hashMismatch
    """,
    "does not match what it says": "claimSignature.mismatch",
    "signature is missing": "claimSignature.missing",
    "certificate was revoked": "signingCredential.revoked signingCredential.ocsp.revoked",
    "not one for signing images": "signingCredential.invalid",
    "was not valid": "claimSignature.outsideValidity",
    "has expired or is not valid yet": "signingCredential.expired",
    "not made as the standard asks": """
        assertion.action.malformed assertion.action.ingredientMismatch assertion.action.redactionMismatch
        assertion.action.missing assertion.action.softBindingMissing assertion.json.invalid assertion.cbor.invalid
        assertion.multipleHardBindings assertion.selfRedacted assertion.notRedacted assertion.dataHash.malformed
        assertion.boxesHash.malformed assertion.bmffHash.malformed assertion.multiAssetHash.malformed
        assertion.alternativeContentRepresentation.malformed assertion.ingredient.malformed
        assertion.required.missing assertion.timestamp.malformed assertion.outsideManifest
        assertion.external-reference.malformed assertion.external-reference.actions
        assertion.external-reference.created assertion.external-reference.hardBinding
        assertion.collectionHash.malformed assertion.collectionHash.invalidURI assertion.cloud-data.hardBinding
        assertion.cloud-data.actions assertion.cloud-data.labelMismatch assertion.cloud-data.malformed
        assertion.metadata.disallowed claim.malformed claim.multiple claim.cbor.invalid claim.required.missing
        manifest.multipleParents manifest.update.invalid manifest.update.wrongParents manifest.timestamp.invalid
        manifest.timestamp.wrongParents manifest.compressed.invalid
    """,
    "something that it names is missing": """
        assertion.missing hashedURI.missing assertion.alternativeContentRepresentation.missing
    """,
    "something that it names cannot be read": "assertion.inaccessible",
    "something that was not signed": "assertion.undeclared",
    "taken out of it that must stay": """
        assertion.action.redacted assertion.dataHash.redacted assertion.hardBinding.redacted
    """,
    "a part that it does not cover": "assertion.boxesHash.unknownBox",
    "a part of the file is missing": "assertion.multiAssetHash.missingPart",
    "more files or fewer": "assertion.collectionHash.incorrectFileCount",
    "what was signed is missing": "claim.missing",
    "not bound to any image": "claim.hardBindings.missing",
    "a credential that it names is missing": "manifest.missing",
    "kept elsewhere cannot be read": "manifest.inaccessible",
    "made from does not fit": """
        ingredient.manifest.mismatch ingredient.claimSignature.mismatch ingredient.hashedURI.mismatch
        ingredient.claimSignature.missing
    """,
    "credential of an image that it was made from is missing": "ingredient.manifest.missing",
    "in a way that is not accepted": "algorithm.unsupported",
    "of a person's identity does not hold": "cawg.identity.assertion.mismatch cawg.ica.signature_mismatch",
}
# which do not speak against a credential
INFORMATIONAL = {
    "not known whether its certificate was revoked": """
        signingCredential.ocsp.unknown signingCredential.ocsp.inaccessible signingCredential.ocsp.skipped
    """,
    "its time stamp does not hold": """
        timeStamp.mismatch timeStamp.malformed timeStamp.outsideValidity timeStamp.credentialInvalid
    """,
    "not made as the standard asks": "manifest.unreferenced",
    "cannot be interpreted here": "manifest.unknownProvenance",
    "made from has no credential": "ingredient.unknownProvenance",
    "in a way that is not accepted": "algorithm.deprecated",
    "of a person's identity does not hold": "cawg.x509.credential.untrusted cawg.ica.untrusted_issuer",
}
FAILING = [(code, said) for said, codes in CODES.items() for code in codes.split()]
NOT_FAILING = [(code, said) for said, codes in INFORMATIONAL.items() for code in codes.split()]
SAID_OF = FAILING + NOT_FAILING


@pytest.mark.parametrize("code, said", SAID_OF, ids=[code for code, _ in SAID_OF])
def test_only_a_mismatch_says_that_something_was_changed(code, said):
    "A careless program signs what does not follow the standard; nobody has touched it since."
    reason = room._reason([code])
    assert said in reason and reason.endswith(f"({code})")
    assert (CHANGED in reason) == (said == CHANGED)


def test_of_several_reasons_a_change_comes_first_and_an_unknown_one_is_quoted():
    codes = ["general.error", "assertion.action.malformed", "signingCredential.expired", "assertion.dataHash.mismatch"]
    assert "changed after it was signed (assertion.dataHash" in room._reason(codes)
    assert "has expired" in room._reason(codes[:3]) and "the standard asks" in room._reason(codes[:2])
    assert room._reason(codes[:1]) == "general.error" and room._reason([]) == "the reason is not given"


@pytest.mark.parametrize("listed", ["success", "informational", "failure"])
def test_a_failure_counts_in_whichever_list_it_was_recorded(listed):
    "c2pa does not repeat what a record has in any of them: so a failure could be hidden."
    own = [("success", KNOWN, "camera")]
    codes = [code for code, _ in FAILING if listed == "failure" or not code.startswith("cawg.")]
    assert not [code for code in codes if from_store(chained(own, [(listed, code, "camera")])).counted]


@pytest.mark.parametrize("code", [code for code, _ in NOT_FAILING])
def test_what_is_no_failure_takes_nothing_away(code):
    listed = "failure" if code.startswith("cawg.") else "informational"
    found = from_store(chained([("success", KNOWN, "camera")], [(listed, code, "camera")]))
    assert found.earlier[0].state == "trusted" and found.claims_model is False


@pytest.mark.parametrize("code", [f"x. {OURS}. ", f"assertion.x). {OURS}. (", f"“. {OURS}. “", OURS, ""])
def test_no_code_that_was_recorded_can_be_taken_for_our_words(code):
    "Who opens a file records its codes, and may write there what they like."
    said = from_store(chained([], [("failure", code, "camera")] * 9)).says
    assert "counts for nothing" in said and OURS not in re.sub("“[^“”]*”", "", said), said
    assert said.count("“") == said.count("”")
    assert_harmless(from_store(chained([], [("failure", EVIL + str(i), "camera") for i in range(99)])))


@pytest.mark.parametrize("action", ["created", "opened", "edited"])
def test_a_careless_writer_is_not_called_a_forger(bare, action):
    "No source type, no ingredient, no beginning: signed like that, and not touched since."
    claim = manifest()
    claim["assertions"][0]["data"] = dict(actions=[dict(action=f"c2pa.{action}")])
    found = read_provenance(signed(bare["JPEG"], claim, signatory()))
    assert found.state == "invalid" and "not made as the standard asks (assertion.action" in found.says
    assert "changed" not in found.says
