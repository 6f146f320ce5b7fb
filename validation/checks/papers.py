"""Where the claims come from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Source:
    """A place in a paper.

    Attributes
    ----------
    paper : str
        Authors, title, year.
    place : str
        Equation, figure, table or section; empty for the paper as a whole.
    link : str
        ``arXiv:...`` or ``doi:...``; empty where there is neither.
    short : str
        Authors and year.
    """

    paper: str
    place: str
    link: str
    short: str

    @property
    def url(self) -> str:
        """Where the link leads; empty without one."""
        kind, _, number = self.link.partition(":")
        return {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/", "": ""}[kind] + number


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A paper: who, what, when, where."""

    authors: str
    title: str
    year: int
    link: str

    def at(self, place: str) -> Source:
        """Return a place in it."""
        return Source(
            paper=f"{self.authors}, {self.title}, {self.year}",
            place=place,
            link=self.link,
            short=f"{self.authors} {self.year}",
        )


ARAUJO = Paper(
    authors="Araujo et al.",
    title="On Lipschitz regularization of convolutional layers using Toeplitz matrix theory",
    year=2021,
    link="arXiv:2006.08391",
)
BOTTCHER_GRUDSKY = Paper(
    authors="Böttcher & Grudsky",
    title="Spectral properties of banded Toeplitz matrices",
    year=2005,
    link="doi:10.1137/1.9780898717853",
)
BOTTCHER_SILBERMANN = Paper(
    authors="Böttcher & Silbermann",
    title="Introduction to large truncated Toeplitz matrices",
    year=1999,
    link="doi:10.1007/978-1-4612-1426-7",
)
GUO_FROBENIUS = Paper(
    authors="Guo",
    title="A Frobenius norm regularization method for convolutional kernels to avoid unstable gradient problem",
    year=2019,
    link="arXiv:1907.11235",
)
GUO_PENALTIES = Paper(
    authors="Guo",
    title="Regularization for convolutional kernel tensors to avoid unstable gradient problem in convolutional "
    "neural networks",
    year=2021,
    link="arXiv:2102.04294",
)
LFA = Paper(
    authors="van Betteray, Rottmann & Kahl",
    title="LFA applied to CNNs: efficient singular value decomposition of convolutional mappings by local Fourier "
    "analysis",
    year=2025,
    link="arXiv:2506.05617",
)
LI = Paper(
    authors="Li et al.",
    title="Preventing gradient attenuation in Lipschitz constrained convolutional networks",
    year=2019,
    link="arXiv:1911.00937",
)
SEDGHI = Paper(
    authors="Sedghi, Gupta & Long",
    title="The singular values of convolutional layers",
    year=2019,
    link="arXiv:1805.10408",
)
# What needs no paper, what was found without this package, and what this package says itself.
INDEPENDENT = Source(
    paper="dense matrices of the papers' layers and NumPy's random numbers, without this package",
    place="",
    link="",
    short="independent computation",
)
ELEMENTARY = Source(paper="elementary linear algebra", place="", link="", short="elementary")
REFUSED = Source(
    paper="documentation of spectral_conv", place="what we refuse to claim", link="", short="our documentation"
)
LAYER = Source(paper="documentation of spectral_conv", place="theory, the layer", link="", short="our documentation")
COMPRESSION = Source(
    paper="documentation of spectral_conv", place="theory, the compression bound", link="", short="our documentation"
)
