//! Prints what an idle, authenticated connection costs the notifier.

fn main() {}
