"""What force field and voxels share: recipes of generated sets, dense molecules, padded batches."""
