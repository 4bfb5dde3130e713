"""The voxel task."""

from equiscope.tasks import Words

WORDS = Words(
    title="denoising of voxels",
    samples="molecules",
    less_data="data.train_conformers=100",
    symmetric="a run of an equivariant model of task=voxels",
)
