"""The commands, one file each; `tshsr.cli.main` dispatches to them. No other package prints."""
