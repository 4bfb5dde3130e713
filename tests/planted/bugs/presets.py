"""The published networks and their options, shifts and cropped grids, and the figures of the authors."""

from tests.planted.engine import bug

UNET, ESCAIP, TRUNK = "tasks/voxels/unet.py", "tasks/forcefield/escaip.py", "tasks/proteinflow/trunk.py"
PAIRS, FLOW = "tasks/proteinflow/features.py", "tasks/proteinflow/flow.py"
T_VOXELS, T_FLOW = "tasks/voxels/", "tasks/proteinflow/"

BUGS = (
    bug("tied kernels go with strides, which break the symmetry they are tied for", UNET, "UNetConfig.__post_init__",
        r"if self\.tied and self\.strided", "if False", T_VOXELS + "test_unet"),
    bug("the published network normalises before attention", UNET, "VoxelAttention.__init__",
        r"if config\.attention_norm else nn\.Identity\(\)", "", T_VOXELS + "test_models"),
    bug("a molecule is shifted by the same along every axis", "tasks/voxels/task.py", "Voxels.training_batch",
        r"s\.batch_size, 1, 3", "s.batch_size, 1, 1", T_VOXELS + "test_task"),
    bug("atoms that are cut off stand in the middle of the grid", "tasks/voxels/voxelise.py", "voxelise",
        r"mask & near", "mask", T_VOXELS + "test_voxelise"),
    bug("sums over neighbours where means are asked for", ESCAIP, "Escaip._edges",
        r"weight / count if alike else weight", "weight", "tasks/forcefield/test_escaip"),
    bug("the second degree of the angle for its cosine", ESCAIP, "AngleAttention.forward",
        r"1:2", "2:3", "tasks/forcefield/test_escaip"),
    bug("pairs with padding take part in triangles", PAIRS, "Triangle.forward",
        r"torch\.where\(real, (.*), 0\.0\)\n", r"\1\n", T_FLOW + "test_features"),
    bug("both triangles outgoing", PAIRS, "Triangle.forward",
        r"bkic,bkjc->bijc", "bikc,bjkc->bijc", T_FLOW + "test_features"),
    bug("pairs are never updated", TRUNK, "Trunk.forward",
        r"self\.updates\[str\(place\)\]\(tokens\[:, extra:\], pair, mask\)", "pair", T_FLOW + "test_models"),
    bug("the flow time goes through one transition of two", TRUNK, "Trunk.__init__",
        r"range\(sizes\.conditioning\)", "range(min(sizes.conditioning, 1))", "tasks/test_presets"),
    bug("distances are asked for at every flow time", FLOW, "distogram_loss",
        r"t > DISTOGRAM_FROM", "t >= 0", T_FLOW + "test_flow"),
    bug("the last probe stands for all of a run's", "report/evidence.py", "Evidence.newest",
        r'str\(record\.get\("probe"\)\)', '""', "report/test_paper_figures"),
)  # fmt: skip
