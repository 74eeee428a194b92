"""What is worth saying of a file, a pair or a result: records with a code and values, whose text is made last.

Code that decides something reads `code`, `severity` and `values`; only people read `text`. All sentences stand in one
table, `TEMPLATES`: rewording one changes no verdict.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from string import Formatter
from typing import Any, Literal

log = logging.getLogger(__name__)

Severity = Literal["note", "warning"]

#: The sentence of each code, in the fields of its values; "{n:pixel|pixels}" is the first word for 1, else the second.
#: A value `file` stands before it by itself.
TEMPLATES: dict[str, str] = {
    # A text alone: what a reader says of a file, or a line of an earlier version.
    "told": "{text}",
    # Metrics that are undefined or leave something out.
    "metric-undefined": "{metric} is undefined: {reason}",
    "metric-bands-left-out": "{metric}: {left_out} of {bands} bands left out: {reason}",
    "metric-window": "{metrics}: window {window} in place of {wanted}, the {image} is smaller",
    "psnr-exact-bands": "psnr: {bands} of {count} bands left out of the mean, without any error",
    "ergas-zero-mean": "ergas: {bands} {bands:band|bands} with zero mean left out",
    "ergas-no-ratio": "ergas is undefined: the ratio of the GSDs isn't known; give --ratio, or --hsi and --msi",
    "q2n-flat": "q2n: {blocks} {blocks:block|blocks} with a constant reference left out",
    "sam-zero-spectra": "{metric}: {pixels} {pixels:pixel|pixels} with a spectrum of zeros left out",
    "nonfinite-unmasked": (
        "{metric} and all others: {pixels} {pixels:pixel holds|pixels hold} NaN or Inf unmasked and {pixels:is|are} "
        "left out"
    ),
    # The pair of images.
    "nonfinite-masked": (
        "{pixels} {pixels:pixel|pixels} of the {image} {pixels:holds|hold} NaN or Inf and {pixels:is|are} masked"
    ),
    "radiometry-not-compared": "radiometry not compared: {reason}",
    "radiometry-matched": "the MSI is brought to the HSI's radiometry by taking out {taken_out}",
    "gains-far": (
        "the MSI's gain against the HSI is far from 1 in {bands}, beyond what calibration explains: taken out, but "
        "check units and scale factors, and that both images are reflectance or both radiance"
    ),
    "tone-taken-out": "the MSI isn't linear in the HSI's reflectance; its tone curves are taken out ({curves})",
    "image-constant": "{what} is constant over the common area: there is no detail to fuse",
    "msi-band-constant": "the MSI's band {band} is constant: it has no detail",
    "msi-bands-doubtful": "MSI bands that hardly follow the HSI: {bands}; their detail is doubtful",
    "msi-doubtful": (
        "MSI bands that hardly follow the HSI: {bands}; their detail is doubtful; do both images show the same place?"
    ),
    "msi-wavelengths-differ": (
        "the MSI's own wavelengths aren't those of {response}: {bands}; is --srf the MSI's sensor?"
    ),
    "stripes-are-ground": (
        "what looks like stripes along the HSI's {along} is the ground's, for the MSI shows it, too: it stays"
    ),
    "stripes-taken-out": (
        "stripes along the HSI's {along} are taken out of {bands} of its {count} bands: they are {share:.0%} of the "
        "noise's variance"
    ),
    "detectors-mended": (
        "{count} of the HSI's detectors {count:gives|give} one value whatever {count:it sees|they see}, in {columns} "
        "{columns:column|columns} and {bands} {bands:band|bands}: what the other bands tell stands there"
    ),
    "values-mended": (
        "{count} single {count:value|values} of the HSI, in {bands} {bands:band|bands}, {count:is|are} ranges away "
        "from what the bands and pixels next to {count:it|them} bear out, as of a hot pixel or a wrapped integer: what "
        "the other bands tell stands there"
    ),
    "smile-taken-out": (
        "the HSI's band centres at {low:.0f} to {high:.0f} nm differ by up to {nm:.1f} +- {sd_nm:.2g} nm over its "
        "columns (a smile){blur}; its spectra are brought to those of the middle column"
    ),
    "sensor-told": "the MSI's sensor: {how}",
    "sensor-estimated": "the MSI doesn't say which sensor took it: its response is estimated from the pair; {advice}",
    "names-contradicted": (
        "the MSI's bands are named as those of {sensor}, but the pair has {bands}; they are called by their numbers "
        "and their response is estimated{advice}"
    ),
    "bands-swapped": "the MSI's bands aren't those named: {bands}; {advice}",
    "sensor-another": (
        "the MSI seems not to be {response}'s: the pair contradicts that and fits {fits}{alike}, with a chi-square of "
        "{fitted} in place of {misfit}, about {chance} by chance{bands}; give --srf {fits}, or the response of "
        "the sensor that took it"
    ),
    "response-untold": (
        "no response within the HSI's wavelengths explains the MSI's {bands}, as where a band lies outside them, or "
        "where light differs between the images (a mosaic's seam): what was estimated for it means little; name the "
        "sensor with --srf if it is known, else leave it out with --msi-bands"
    ),
    "response-contradicted": "the pair contradicts the response of {response}: {bands}",
    "haze-taken-out": (
        "one of both images has thin cloud, haze or other smooth light that the other hasn't: of what gain and offset "
        "leave between them {share:.0%} is smooth, {size:.2g} RMS; it is taken out of the MSI, and what it "
        "dims is made as bright as elsewhere"
    ),
    "light-evened": (
        "one of both images is darker here and brighter there than the other by a smooth factor, {size:.1%} RMS, as by "
        "sun, view or a mosaic's seam: it is taken out of the MSI, and with it {share:.0%} of what gain and offset "
        "leave between them"
    ),
    "haze-left": (
        "one of both images has cloud or other smooth light that the other hasn't, too thick or too unlike haze to be "
        "made good ({why}): it is left, and what is fused under it is wrong; mask it in both images"
    ),
    "hsi-clouded": (
        "over {share:.1%} of the ground the HSI has cloud or other smooth light that the MSI hasn't: it is left, and "
        "the cube has its spectra there; mask it in the HSI"
    ),
    "ground-hidden": (
        "over at least {share:.1%} of the ground the {image} is brighter in all bands than the {other} by more than "
        "the ground's contrast, as under opaque cloud: at best {what}; nothing is masked: mask it in both images"
    ),
    "fit-untold": (
        "while cloud over the {image} alone isn't masked, it can't be told how well the images fit beside it (with it "
        "they differ by {times:.1f} times their noise), and thin cloud around it is left"
    ),
    "images-differ": (
        "the two images show different things in about {where:.0%} of the scene, such as clouds, shadows or change "
        "between their dates: on the HSI's pixels they differ by {times:.1f} times their noise, beyond it by "
        "{share:.0%} of the detail's contrast, and no single part of the sensors' model explains that alike all over"
    ),
    "ground-changed": (
        "over about {share:.0%} of the scene, with what borders on it, the two images show different ground{where}, as "
        "after a harvest, with other water, a new roof, or under cloud or its shadow in one of them: what is fused "
        "there is neither's (--qa writes a layer, spatial distortion, in which it stands out); mask it in the image "
        "that is out of date, by its nodata value"
    ),
    "model-misfit": (
        "the model of the sensors doesn't fit: on the HSI's pixels the two images differ by {times:.1f} times their "
        "noise, beyond it by {share:.0%} of the detail's contrast; {part} explains {explained:.0%} of that: {advice}"
    ),
    "msi-bands-coarse": (
        "MSI bands of a coarser GSD aren't used: {bands}; the detail that sharpening gives them costs more than they "
        "tell (--msi-bands names those to use)"
    ),
    "msi-bands-enlarged": (
        "MSI bands left out: {bands} hold no detail of this grid, as coarser bands do that were enlarged to it; taken "
        "for detail it costs accuracy (--msi-bands names those to use nevertheless)"
    ),
    "msi-bands-empty": "MSI bands left out, they are empty: {bands}",
    "msi-one-detail": (
        "the MSI's bands have one and the same finest detail (they correlate by {least:.3f} or more in it), as "
        "pansharpened or strongly compressed images do: it tells no colours, and the cube's may be the less "
        "accurate there; the bands as the sensor took them are the better input, if you have them"
    ),
    "hsi-bands-bad": "HSI bands that are marked bad or empty take no part: {bad} of {bands} ({nm})",
    "bands-constant": "bands of one value all over, with nothing of the ground: {which}{advice}",
    "hsi-bands-noisy": (
        "{bands} of {count} HSI bands {bands:has|have} some {times:.3g} times the median band's noise ({nm}; SNR of "
        "{snr} dB): {bands:it is|they are} weighed by it, so that it doesn't get into the others"
    ),
    "hsi-bands-noise": (
        "HSI bands that vary more by noise than by the ground: {bands} of {count} ({nm}; SNR of {snr} dB, some "
        "{times:.3g} times the median band's noise). Their noise is kept out of the others and of the MSI's response, "
        "but what is fused in these bands is hardly measured; mark them bad in the file to leave them out "
        "(--drop-absorption: those in water vapour)"
    ),
    "hsi-bands-absorbed": (
        "{bands} HSI {bands:band lies|bands lie} in water vapour absorption and {bands:takes|take} no part"
    ),
    "psf-size-unused": "--psf-size {size} isn't used: the HSI is resampled, which widens its PSF",
    "shift-found": "shift of the HSI against the MSI: {shift}",
    "detail-by-msi": (
        "resampling moves the HSI's finest detail wrongly: what of it goes with the MSI is put where the MSI shows it, "
        "{share:.1%} RMS of the HSI's contrast"
    ),
    "shift-judged": "{verdict}",
    "place-by-pixels": (
        "all of the HSI's own pixels have it up to {most:.2f} LR pixels beside where windows have it: it is moved there"
    ),
    "detectors-apart": (
        "the HSI's bands of {low:.0f} to {high:.0f} nm show the ground {down:+z.2f} +- {down_sd:.2f} (down) and "
        "{right:+z.2f} +- {right_sd:.2f} (right) HSI pixels off its other bands, as those of a second detector do"
    ),
    "detectors-together": (
        "the HSI's bands of {low:.0f} to {high:.0f} nm show the ground {down:+z.2f} +- {down_sd:.2f} (down) and "
        "{right:+z.2f} +- {right_sd:.2f} (right) HSI pixels off its other bands, as those of a second detector do: "
        "they are resampled to where the others lie, their detail that goes with the MSI put where the MSI shows it"
    ),
    "hsi-repeated": (
        "{share:.1%} of the HSI's pixels repeat their neighbour's spectrum: it was brought onto its map by nearest "
        "neighbour, which misplaces each pixel by up to half of one, in its own direction, and costs fine detail; "
        "bring it there by cubic interpolation, or give it as the sensor saw it"
    ),
    "ground-misplaced": (
        "here and there the HSI's ground lies some {pixels:.1f} MSI pixels (standard deviation) from where the MSI has "
        "it; only what changes smoothly over several HSI pixels is corrected, so detail will be doubled or lost: check "
        "the terrain correction of both images"
    ),
    "bright-apart": (
        "what is bright in the scene, such as clouds, lies {pixels:.1f} HSI pixels elsewhere in one image than the "
        "rest of the ground, by which alone the images are laid on each other: mask it in both"
    ),
    "shift-doubtful": (
        "the images are moved by {pixels:.1f} HSI pixels onto each other and still show different light: that shift "
        "may be one of clouds or shadows; mask these in both, or compare with --register off"
    ),
    "shift-stays": "the shift stays, as --phase says where the HSI's pixels lie",
    "psf-assumed": "the PSF is assumed to have an MTF of {mtf:g} at Nyquist, as the pair doesn't tell it: {why}",
    "psf-estimated": "estimated PSF: {what}",
    "estimated": "estimated {what}",
    "response": "{about}",
    "bands-matched": "{how}",
    "bands-not-covered": "{left_out}",
    "days-apart": (
        "the HSI was acquired on {hsi}, the MSI on {msi}, {apart} apart: what changed on the ground in between "
        "shows as false detail"
    ),
    "quantities-matched": (
        "the HSI holds {hsi}, the MSI {msi}: their bands are matched by gain and offset, the fused image is {hsi}"
    ),
    "quantity-multiplied": (
        "the HSI doesn't say what its numbers are; {guess}; both images are multiplied by {factor:g}"
    ),
    "levels-far-apart": (
        "the MSI's numbers are about {ratio:.3g} times the HSI's: more than any two units differ by; check both "
        "images' scale factors"
    ),
    "levels-apart": (
        "the MSI's numbers are about {ratio:.3g} times the HSI's: too little for a difference of units, much for one "
        "of the ground; check both images"
    ),
    "levels-contradict": (
        "the MSI's numbers are about {ratio:.3g} times the HSI's, though both say their units; check their scale "
        "factors"
    ),
    "units-settled": (
        "the MSI's numbers are about {ratio:.3g} times the HSI's: taken as a difference of units; the {image}, which "
        "doesn't say its own, is multiplied by {factor:g}"
    ),
    # Files.
    "not-georeferenced": "not georeferenced{why}",
    "msi-cut-off": (
        "more pixels than by chance hold the highest number of {bands}: what is brighter was cut off there, as in "
        "a saturated or stretched image, and fused values under it may be too low; give an MSI that isn't stretched"
    ),
    "band-dead": (
        "{what}, whole lines or a block of one number that the other bands don't have: masked as fill; leave the band "
        "out with --msi-bands to have the ground under it fused (--msi-nodata none keeps them)"
    ),
    "values-wild": (
        "{count} single {count:value|values} of {bands} {count:is|are} far above or below all others of the band, and "
        "the pixels next to {count:it|them} don't show it, as of a hot pixel or a wrapped integer: masked; where "
        "{count:it is a lamp|they are lamps} of one spectral line, --msi-nodata none keeps {count:it|them}"
    ),
    "fill-masked": "{fill}: masked as fill{advice}",
    "numbers-extreme": (
        "most of its numbers lie between {low:.1g} and {high:.1g}, as no radiance or reflectance does, and computing "
        "with them fails; are byte order and data type (ENVI header) right?"
    ),
    "fill-unseen": (
        "too large to be searched whole for fill that no nodata value declares: one in {step} rows and columns was "
        "looked at; what holds {fill}, far from all that was seen, is masked wherever it comes up"
    ),
    "bands-sharpened": ("{bands} {count:has|have} a GSD of {gsd} and {count:is|are} brought to {finest}, {how}"),
    "fill-kept": "{fill}: they are kept as values; if they are none, {advice}",
    "msi-unreached": "the HSI doesn't reach {share:.1%} of the MSI",
    # Writing.
    "cog-by-pixel": (
        "this GDAL writes COGs with all bands in each block, so that reading one band reads all; from GDAL 3.11 on "
        "they are written band by band"
    ),
    "scale-coarse": "{about}",
    "overlap-cut": "tiles of {tile} MSI pixels overlap by {overlap}, all that they can, in place of {wanted}",
    "stored-as": "stored as {dtype} in steps of {step:g}",
    "clipped": (
        "{clipped} of {values} values ({share:.2g} of all) in {name} don't fit {dtype} in steps of {step:g} and are "
        "clipped; choose another --scale or --dtype float32"
    ),
    "output-damaged": "{name} was finished and isn't whole any more ({why}); it is made again",
    "starts-anew": "what an interrupted run left of {name} {why}; it starts anew",
    # What an assessment finds.
    "msi-unused": (
        "--method {method} takes nothing of the MSI but its grid and its place: the cube is no sharper than the HSI"
    ),
    "other-images": (
        "the fused file was made from other files than this {images}: what it records of its images isn't used, and "
        "those that are given are judged"
    ),
    "recorded-settings": "as the fused file records: {settings}",
    "pixels-masked": "{share:.1%} of the fused cube's pixels are masked or nodata and are not assessed.",
    "bands-not-assessed": (
        "{bands} {bands:band|bands} of the fused cube {bands:is|are} marked bad or empty and {bands:is|are} not "
        "assessed."
    ),
    "bands-of-hsi": "the fused cube has {bands} of the HSI's {usable} usable bands",
    "no-msi-band-within": (
        "no MSI band lies within the fused cube's wavelengths: agreement with the MSI isn't assessed"
    ),
    "no-wavelengths": "no file has wavelengths: bands are numbered in the curves",
    "aligned-by-corners": "only one of {one} and {other} is georeferenced: aligned by corners",
    "inconsistent": (
        "The fused cube doesn't give the {image} back: it differs by {error:.0%} (relative RMSE). Check that these are "
        "its inputs, in the same units, and that PSF and response fit the sensors."
    ),
    "misplaced": (
        "The MSI seems shifted against the LRHSI by about {shift}: edges in some bands are misplaced. Register the two "
        "images, or set the phase, and fuse again."
    ),
    "gains-differ": (
        "The MSI's radiometry differs from the cube's ({bands}): the two sensors or their corrections see other "
        "brightness, and consistency with the MSI includes this."
    ),
    "unseen": "No MSI band sees {ranges}: fine detail there is inferred from other wavelengths, not measured.",
    "reference-turned": (
        "The reference fits the cube clearly better {how} (correlation {correlation:.2f} in place of {now:.2f}): all "
        "figures against it are of no use before both lie alike."
    ),
    "reference-unlike": (
        "The reference hardly follows the cube (correlation {correlation:.2f}): check that it shows the same place on "
        "the same day."
    ),
    "other-response": (
        "The cube was fused with another spectral response than {source} holds now: what is said of its agreement with "
        "the MSI is about this one."
    ),
    # Which quantity the figures are in.
    "quantity-guessed": "the {what} doesn't say what its numbers are; {guess}",
    "quantity-rescaled": "the {what} doesn't say what its numbers are; {guess}; it is multiplied by {factor:g}",
    "unit-followed": (
        "the numbers of the {what} are about 10^{power} times those of the {other}, and it doesn't say its unit: it is "
        "multiplied by {factor:g}"
    ),
    "unit-unknown": "the unit of the numbers isn't known: errors are in the numbers of {anchor}",
    "units-differ": (
        "it can't be told from their numbers that the {what} and the {other} are in one unit: figures that depend on "
        "it can't be compared with those of other files"
    ),
    "peak-rescaled": "the peak {given:g} is taken as a number of the file, which is {peak:g} in {quantity}",
}


class _Sentence(Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        if "|" not in format_spec:
            return str(super().format_field(value, format_spec))
        one, several = format_spec.split("|")
        return one if value == 1 else several


def say(template: str, values: Mapping[str, Any]) -> str:
    """A template in the fields of these values.

    >>> say("{n} {n:pixel is|pixels are} masked", {"n": 1}), say("{n} {n:pixel is|pixels are} masked", {"n": 2})
    ('1 pixel is masked', '2 pixels are masked')
    """
    return _Sentence().vformat(template, (), values)


@dataclass(frozen=True)
class Note:
    """One thing worth saying. `severity` "warning" speaks against the result, "note" tells what was decided.

    `values` (plain JSON values) fill in the sentence of `code`; of a `file` the name stands before it.
    """

    code: str
    severity: Severity = "note"
    values: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def text(self) -> str:
        """The sentence, for people."""
        file = f"{self.values['file']}: " if "file" in self.values else ""
        return file + say(TEMPLATES[self.code], self.values)

    @property
    def sentence(self) -> str:
        """The same as a sentence of its own; a file's name keeps its letters."""
        return self.text if "file" in self.values else self.text[:1].upper() + self.text[1:]

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the record, and its text for readers of another version."""
        return {"code": self.code, "severity": self.severity, "values": dict(self.values), "text": self.text}


def note(code: str, **values: Any) -> Note:
    """What was decided or found, and is no cause for doubt."""
    return Note(code, "note", values)


#: Share of the MSI's pixels from which on it is said that the fused cube hasn't them.
LEAST_UNREACHED = 0.0005


def unreached(share: float) -> str:
    """That the fused cube hasn't this share of the MSI's pixels; "" where it is next to nothing."""
    return note("msi-unreached", share=share).text if share >= LEAST_UNREACHED else ""


def masked_words(masked: Mapping[str, float]) -> str:
    """Which share of the common extent each image masks, in words; "" where none does.

    >>> masked_words({"HSI": 0.093, "MSI": 0.0})
    '9.3% in the HSI'
    """
    return ", ".join(f"{share:.1%} in the {image}" for image, share in masked.items() if share)


def about_file(name: str, text: str) -> Note:
    """What a reader says of its file in words of its own; nothing is decided by it."""
    return note("told", file=name, text=text)


def warning(code: str, **values: Any) -> Note:
    """What speaks against the result."""
    return Note(code, "warning", values)


#: What doubts are about of which a cube without the MSI's detail has nothing: its bands' response, detail and light.
OF_MSI_DETAIL = frozenset(
    {
        "unseen",
        "ground-changed",
        "images-differ",
        "model-misfit",
        "fit-untold",
        "haze-left",
        "ground-misplaced",
        "psf-assumed",
        "sensor-another",
        "bands-swapped",
        "names-contradicted",
        "response-untold",
        "response-contradicted",
        "gains-far",
        "msi-cut-off",
        "msi-one-detail",
        "msi-bands-empty",
        "msi-bands-enlarged",
        "msi-band-constant",
        "msi-bands-doubtful",
        "msi-wavelengths-differ",
        "misplaced",
        "gains-differ",
        "levels-apart",
        "levels-far-apart",
        "levels-contradict",
    }
)


def without_msi(notes: Iterable[Note]) -> list[Note]:
    """Those that concern a cube in which nothing is the MSI's but grid and place."""
    return [one for one in notes if one.code not in OF_MSI_DETAIL and one.values.get("image") != "MSI"]


def texts(notes: Iterable[Note], severity: Severity | None = None) -> list[str]:
    """The sentences of the notes, or of those of one severity."""
    return [one.text for one in notes if severity in (None, one.severity)]


def records(notes: Iterable[Note]) -> list[dict[str, Any]]:
    """The notes for JSON."""
    return [one.to_dict() for one in notes]


def read_records(found: Any) -> list[Note]:
    """Notes from JSON, each as `records` made it; one of a code that isn't known here keeps its text alone."""
    return [_read(one) for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def recorded(provenance: Mapping[str, Any]) -> list[Note]:
    """All that was said as a fused file was made: of the pair, and (`said`) of bands and writing."""
    return [*read_records(provenance.get("records")), *read_records(provenance.get("said"))]


def _read(record: Mapping[str, Any]) -> Note:
    severity: Severity = "warning" if record.get("severity") == "warning" else "note"
    code, values = record.get("code"), record.get("values")
    if code in TEMPLATES and isinstance(values, Mapping):
        made = Note(str(code), severity, dict(values))
        with suppress(KeyError, IndexError, ValueError, TypeError):  # another version may have had other values
            if made.text:
                return made
    return Note("told", severity, {"text": str(record.get("text", code))})


@contextmanager
def step(name: str) -> Iterator[None]:
    """A line in the log when a step of a command is done, with the time that it took; one that fails has its error.

    >>> with step("fitting"):
    ...     pass
    """
    began = time.monotonic()
    yield
    log.debug("%s took %.1f s", name, time.monotonic() - began)
