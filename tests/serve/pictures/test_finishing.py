"""The whole way from pixels to a file: its order, what each step leaves, and what is refused at the start."""

import json
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from numpy.typing import NDArray
from PIL import Image

from serve.errors import RequestError
from serve.offer import Offer
from serve.pictures import Finishing, Signing, finished, parameters_of, picture_file
from serve.pictures.provenance import SOURCE
from serve.pictures.watermark import message_of
from serve.request import GenerationRequest, OutputFormat
from ssd1b.sizes import Size

SIZES = (Size(256, 384), Size(128, 128))
OFFER = Offer(model="ssd1b-nano", version="7", created=1, sizes=SIZES, samplers=("euler",), prompt_tokens=75)
PIXELS = np.random.default_rng(0).integers(90, 130, (256, 384, 3), dtype=np.uint8)
FORMATS: tuple[OutputFormat, ...] = ("png", "jpeg", "webp")


def asked(form: OutputFormat = "png", prompt: str = "a fox") -> GenerationRequest:
    return GenerationRequest(prompt=prompt, seed=1, output_format=form, output_compression=95)


def pixels_of(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(BytesIO(data)))


def no_foxes(pixels_HW3: NDArray[np.uint8], request: GenerationRequest) -> str | None:
    """A safety hook: sees the picture before it is marked."""
    assert (pixels_HW3 == PIXELS).all()
    return "a fox, of all things" if "fox" in request.prompt else None


NOT_A_HOOK = 3


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with chain.pem, key.pem and root.pem of a certificate authority of this test's own."""
    folder = tmp_path_factory.mktemp("chain")
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = certificate("the root", root_key, "the root", root_key, authority=True)
    leaf = certificate("the signer", key, "the root", root_key, authority=False)
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "chain.pem").write_bytes(leaf.public_bytes(pem) + root.public_bytes(pem))
    (folder / "root.pem").write_bytes(root.public_bytes(pem))
    (folder / "key.pem").write_bytes(private)
    return folder


def certificate(name: str, key: Any, issuer: str, issuer_key: Any, authority: bool) -> x509.Certificate:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(kind, text) for kind in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)])

    now = datetime.now(UTC)
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    builder = (
        x509.CertificateBuilder(named(issuer), named(name), key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **usage),
            critical=True,
        )
    )
    if not authority:
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purposes, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def signing(folder: Path, **changed: Any) -> Signing:
    return Signing(**{"chain": folder / "chain.pem", "key": folder / "key.pem", **changed})


def manifest_of(data: bytes, form: OutputFormat, root: Path) -> tuple[str | None, dict[str, Any]]:
    """Return what the standard's own reader says of a file, trusting our root: its state, its manifest."""
    trust = {"trust": {"trust_anchors": root.read_text()}, "verify": {"verify_trust": True}}
    with (
        c2pa.Context.from_dict(trust) as context,
        c2pa.Reader(f"image/{form}", BytesIO(data), context=context) as reader,
    ):
        store = json.loads(reader.json())
        return reader.get_validation_state(), store["manifests"][store["active_manifest"]]


@pytest.mark.parametrize("form", FORMATS)
def test_by_default_only_the_parameters(form: OutputFormat) -> None:
    data = finished(PIXELS, asked(form), 5, OFFER, Finishing())
    text = parameters_of(data)
    assert text is not None
    assert (text.prompt, text.settings["Seed"], text.settings["Size"]) == ("a fox", "5", "384x256")
    assert data == finished(PIXELS, asked(form), 5, OFFER, Finishing())
    assert (pixels_of(data) == pixels_of(picture_file(PIXELS, form, 95))).all()


def test_all_of_it_off_is_the_bare_file() -> None:
    assert finished(PIXELS, asked(), 5, OFFER, Finishing(parameters=False)) == picture_file(PIXELS, "png")


def test_a_watermark_and_a_size_that_cannot_carry_it(caplog: pytest.LogCaptureFixture) -> None:
    how = Finishing(watermark="ssd1b!")
    how.check(OFFER)
    assert "128x128 carry no watermark" in caplog.text
    assert message_of(pixels_of(finished(PIXELS, asked(), 1, OFFER, how)), 6) == b"ssd1b!"
    small = PIXELS[:128, :128]
    assert (pixels_of(finished(small, asked(), 1, OFFER, how)) == small).all()


@pytest.mark.parametrize("form", FORMATS)
def test_a_signed_file_holds_everything_and_is_trusted(chain: Path, form: OutputFormat) -> None:
    how = Finishing(watermark="ssd1b!", provenance=signing(chain))
    how.check(OFFER)
    data = finished(PIXELS, asked(form), 5, OFFER, how)
    state, manifest = manifest_of(data, form, chain / "root.pem")
    assert state == "Trusted"
    assert manifest["claim_generator_info"][0]["name"] == "ssd1b"
    (action,) = manifest["assertions"][0]["data"]["actions"]
    assert (action["action"], action["digitalSourceType"]) == ("c2pa.created", SOURCE)
    assert action["softwareAgent"] == {"name": "ssd1b: ssd1b-nano", "version": "7"}
    assert "thumbnail" not in manifest
    text = parameters_of(data)
    assert text is not None
    assert text.prompt == "a fox"
    unsigned = finished(PIXELS, asked(form), 5, OFFER, Finishing(watermark="ssd1b!"))
    assert (pixels_of(data) == pixels_of(unsigned)).all()


def test_a_changed_file_is_found_out(chain: Path) -> None:
    data = bytearray(finished(PIXELS, asked(), 5, OFFER, Finishing(provenance=signing(chain))))
    at = data.rindex(b"IDAT") + 100
    data[at] ^= 1
    assert manifest_of(bytes(data), "png", chain / "root.pem")[0] == "Invalid"


def test_a_flagged_picture_is_refused() -> None:
    how = Finishing(safety=f"{__name__}:no_foxes", watermark="ssd1b!")
    how.check(OFFER)
    with pytest.raises(RequestError, match="safety filter") as info:
        finished(PIXELS, asked(), 1, OFFER, how)
    assert (info.value.status, info.value.code) == (400, "moderation_blocked")
    assert "of all things" not in str(info.value)
    assert finished(PIXELS, asked(prompt="a hen"), 1, OFFER, how)


def test_a_hook_that_fails_lets_nothing_out() -> None:
    with pytest.raises(AssertionError):
        finished(PIXELS + 1, asked(prompt="a hen"), 1, OFFER, Finishing(safety=f"{__name__}:no_foxes"))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"watermark": ""}, "not 1 to 16 bytes"),
        ({"watermark": "ü" * 9}, "not 1 to 16 bytes"),
        ({"safety": "no_such"}, "write package.module:function"),
        ({"safety": "no_such:hook"}, "cannot be imported"),
        ({"safety": f"{__name__}:no_hook"}, "cannot be imported"),
        ({"safety": f"{__name__}:NOT_A_HOOK"}, "is no function"),
    ],
)
def test_what_cannot_be_done_is_said_at_the_start(how: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Finishing(**how).check(OFFER)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"key": Path("nothing.pem")}, "cannot read nothing.pem"),
        ({"algorithm": "rot13"}, "does not sign with 'rot13'"),
        ({"chain": "root.pem", "key": "root.pem"}, "cannot sign with"),
    ],
)
def test_a_signature_that_cannot_be_made(chain: Path, changed: dict[str, Any], says: str) -> None:
    here = {name: chain / value if value == "root.pem" else value for name, value in changed.items()}
    with pytest.raises(ValueError, match=says):
        Finishing(provenance=signing(chain, **here)).check(OFFER)
