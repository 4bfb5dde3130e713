"""The commands, a file each: ``add_parser`` adds it to the subparsers of ``equiscope``, ``run`` gives its status."""
