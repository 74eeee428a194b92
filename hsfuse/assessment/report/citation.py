"""The paragraph on methods that a paper can take over, with its references."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from hsfuse.assessment import Assessment
from hsfuse.assessment.report.facts import gsd
from hsfuse.assessment.report.words import CARDS
from hsfuse.assessment.result import ImageFacts
from hsfuse.assessment.table import number
from hsfuse.core.notes import read_records
from hsfuse.core.package import __version__
from hsfuse.metrics import CATALOGUE

_SRLF = (
    "Liu, Y., Liu, J., Dian, R., Li, S., 2025. A selective re-learning mechanism for hyperspectral fusion imaging. "
    "Proc. IEEE/CVF CVPR, 7437-7446."
)
_CNMF = (
    "Yokoya, N., Yairi, T., Iwasaki, A., 2012. Coupled nonnegative matrix factorization unmixing for hyperspectral and "
    "multispectral data fusion. IEEE TGRS 50(2)."
)
_HYPERSHARPENING = (
    "Selva, M., Aiazzi, B., Butera, F., Chiarantini, L., Baronti, S., 2015. Hyper-sharpening: a first approach on "
    "SIM-GA data. IEEE JSTARS 8(6)."
)
_CONIC = (
    "Dong, W., et al., 2016. Hyperspectral image super-resolution via non-negative structured sparse representation. "
    "IEEE TIP 25(5)."
)
_GUIDED = "Kopf, J., Cohen, M. F., Lischinski, D., Uyttendaele, M., 2007. Joint bilateral upsampling. ACM TOG 26(3)."
_GLP = (
    "Aiazzi, B., Alparone, L., Baronti, S., Garzelli, A., Selva, M., 2006. MTF-tailored multiscale fusion of "
    "high-resolution MS and Pan imagery. PE&RS 72(5)."
)
_BLEND = (_HYPERSHARPENING, _CONIC, _CNMF, _GUIDED)
#: What each method follows; the first of them has its idea.
SOURCES: dict[str, tuple[str, ...]] = {
    "bicubic": (),
    "glp": (_GLP,),
    "glp-reg": (_HYPERSHARPENING,),
    "glp-ens": (_HYPERSHARPENING,),
    "conic": (_CONIC,),
    "guided": (_GUIDED,),
    "cnmf": (_CNMF,),
    "blend": _BLEND,
    "fuse": (
        "Wei, Q., Dobigeon, N., Tourneret, J.-Y., 2015. Fast fusion of multi-band images based on solving a Sylvester "
        "equation. IEEE TIP 24(11).",
    ),
    "hysure": (
        "Simões, M., Bioucas-Dias, J., Almeida, L. B., Chanussot, J., 2015. A convex formulation for hyperspectral "
        "image superresolution via subspace-based regularization. IEEE TGRS 53(6).",
    ),
    "gsa": (
        "Aiazzi, B., Baronti, S., Selva, M., 2007. Improving component substitution pansharpening through multivariate "
        "regression of MS + Pan data. IEEE TGRS 45(10).",
    ),
    "sfim": (
        "Liu, J. G., 2000. Smoothing filter-based intensity modulation: a spectral preserve image fusion technique for "
        "improving spatial details. IJRS 21(18).",
    ),
    "srlf": (_SRLF,),
    "srlf-any": (_SRLF,),
    "srlf-bands": (_SRLF,),
}
#: Metrics that the paragraph tells, and those of them whose source is a publication.
TRUTH, ALONE = ("psnr", "sam", "ergas", "ssim"), ("hqnr",)
PUBLISHED = ("sam", "ergas", "ssim", "hqnr")
_WALD = (
    "Wald, L., Ranchin, T., Mangolini, M., 1997. Fusion of satellite images of different spatial resolutions. PE&RS "
    "63(6)."
)


class _References:
    """References in the order in which they are first cited."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, *texts: str) -> str:
        """The numbers of these, such as [2, 3]; empty without any."""
        self.texts += [text for text in dict.fromkeys(texts) if text not in self.texts]
        return f" [{', '.join(str(self.texts.index(text) + 1) for text in texts)}]" if texts else ""


def methods_paragraph(a: Assessment) -> tuple[str, list[str]]:
    """The paragraph, and the references that it cites by number from 1."""
    cite = _References()
    return " ".join(_sentences(a, cite)), cite.texts


def _sentences(a: Assessment, cite: _References) -> Iterator[str]:
    version = str(a.provenance.get("hsfuse") or "")
    software = cite(_software(version)) if version else ""
    inputs = [_image(kind, a.images[name]) for name, kind in _KINDS.items() if name in a.images]
    source = f" from {' '.join(inputs)}" if inputs else ""
    made = f" with hsfuse {version}{software}" if version else ""
    size = f"{a.shape[0]} bands and {a.shape[1]} × {a.shape[2]} pixels"
    yield f"A cube of {size} was fused{source}{made}{_method(a, cite)}."
    if corrected := _corrected(a):
        yield f"Before the fusion was corrected: {'; '.join(corrected)}."
    if a.ratio is not None and a.psf is not None:
        yield f"The ratio of their ground sampling distances is {a.ratio}; the hyperspectral image's PSF is {_psf(a)}."
    if a.response is not None:
        how = "estimated from the pair" if a.response.estimated else a.response.name
        yield f"Of the multispectral image the bands {a.response.listed} were used, with the spectral responses {how}."
    if "psnr" in a.metrics:
        yield f"Against a reference it reaches {_figures(a, TRUTH, cite)}."
    if a.reduced is not None and "psnr" in a.reduced.metrics:
        wald = cite(_WALD)
        yield f"At reduced resolution by Wald's protocol{wald} it reaches {_figures(a.reduced, TRUTH, cite)}."
    if a.metrics.get("hqnr") is not None:
        yield f"Judged without a reference it has {_figures(a, ALONE, cite)}."
    if a.metrics:
        yield f"Quality was assessed with hsfuse {__version__}{cite(_software(__version__))}."


_KINDS = {"LRHSI": "the hyperspectral image", "MSI": "and the multispectral image"}


def _software(version: str) -> str:
    return f"The hsfuse developers, hsfuse: fusion of hyperspectral and multispectral images, version {version}."


def _image(kind: str, image: ImageFacts) -> str:
    """An input with sensor or file, day and size."""
    spacing = [gsd(image.grid)] if image.grid.georeferenced else []
    told = [image.acquired, f"{image.grid.shape[0]} × {image.grid.shape[1]} pixels", *spacing]
    return f"{kind} {image.sensor or Path(image.path).name} ({', '.join(part for part in told if part)})"


def _method(a: Assessment, cite: _References) -> str:
    """By what the cube was made: of a method with a base only the parts that its provenance says had a say."""
    record = a.provenance.get("method")
    told = dict(record) if isinstance(record, Mapping) else {"method": record}
    name, base = (str(told.get(key) or "") for key in ("method", "base"))
    if not name:
        return ""
    made, parts = f" by the method {base or name}{cite(*SOURCES.get(base or name, ()))}", a.provenance.get("parts")
    by = [] if not isinstance(parts, Mapping) else [*_corrections(parts, cite)]
    made += f", corrected {' and '.join(by)}" if by else ""
    agreed = str(told.get("consistency") or "off")
    return made if agreed == "off" else f"{made}, and {agreed}"


def _corrections(parts: Mapping[str, object], cite: _References) -> Iterator[str]:
    """The scene regression, and SRLF-Net with weights and training on the scene, as far as they had a part."""
    if "scene regression" in parts:
        yield "by a linear regression that the scene itself teaches at reduced resolution"
    how = [f"with the weights {parts['weights']}"] if "weights" in parts else []
    how += ["trained on the scene"] if "training" in parts else []
    if how:
        yield f"by SRLF-Net{cite(_SRLF)} {', '.join(how)}"


#: What was put right before fusing, by the code of the note that says so, in the fields of its values.
CORRECTED = {
    "stripes-taken-out": "stripes along the {along} of the hyperspectral image",
    "smile-taken-out": "a smile of the hyperspectral image (band centres that differ by up to {nm:.1f} nm)",
    "detail-by-msi": "fine detail of the hyperspectral image that resampling moves wrongly, by the multispectral image",
    "detectors-together": (
        "the place of the hyperspectral image's bands of {low:.0f} to {high:.0f} nm against its others ({down:+z.2f} "
        "and {right:+z.2f} of its pixels down and right)"
    ),
    "tone-taken-out": "tone curves of the multispectral image ({curves})",
    "haze-taken-out": "smooth light, as of thin cloud, that one of both images has alone",
    "light-evened": "a smooth factor between the brightness of both images",
    "radiometry-matched": "the radiometry of the multispectral image ({taken_out})",
}


def _corrected(a: Assessment) -> list[str]:
    """What was put right before fusing, in words."""
    found = []
    place = a.provenance.get("registration")
    if isinstance(place, Mapping) and place.get("corrected"):
        amounts = f" ({place['amounts']})" if place.get("amounts") else ""
        found.append(f"the place of the hyperspectral image{amounts}")
    notes = read_records(a.provenance.get("records"))
    return found + [CORRECTED[one.code].format(**one.values) for one in notes if one.code in CORRECTED]


def _psf(a: Assessment) -> str:
    told = a.sensors.get("psf")
    label = told.get("label") if isinstance(told, Mapping) else ""
    how = {"estimated": ", estimated from the pair", "assumed": ", assumed", "told": ", given"}
    return (
        f"{label or 'described by its kernel'}{how.get(str(told.get('how')) if isinstance(told, Mapping) else '', '')}"
    )


def _figures(a: Assessment, keys: tuple[str, ...], cite: _References) -> str:
    found = [(key, value) for key in keys if (value := a.metrics.get(key)) is not None]
    units = {"1": "", "degrees": "°"}
    texts = []
    for key, value in found:
        unit = units.get(CATALOGUE[key].unit, f" {CATALOGUE[key].unit}")
        source = cite(f"{CATALOGUE[key].source}.") if key in PUBLISHED else ""
        texts.append(f"{CARDS[key][0]} {number(value)}{unit}{source}")
    return ", ".join(texts)
