"""The commands, one file each; `tshsr.cli.main` chooses among them. Only here, and in `cli`, is anything printed."""
