"""The protein-flow task."""

from equiscope.tasks import Words

WORDS = Words(
    title="flow matching of proteins",
    samples="protein chains",
    less_data="data.fraction=0.1",
    symmetric="equiscope train task=proteinflow model=proteina_equivariant run=NAME",
    unit="nm",
)
