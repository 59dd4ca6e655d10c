"""What each command of `semprior-tune` does; `tune.cli` reads its arguments."""
