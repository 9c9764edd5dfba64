"""The commands, one file each; `tshsr.cli` chooses among them. Only here, and in `cli`, is anything printed."""
