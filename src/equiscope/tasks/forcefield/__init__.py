"""The force-field task."""

from equiscope.tasks import Words

WORDS = Words(
    title="force field",
    samples="molecules",
    less_data="data.train_frames=500",
    symmetric="equiscope train task=forcefield model=escaip_tied run=NAME",
    unit="eV/Å",
)
