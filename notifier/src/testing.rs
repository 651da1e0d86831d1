//! What unit tests share.

/// Numbers below a limit. The seed is printed, and `BELLHOP_TEST_SEED` repeats it.
pub(crate) fn random() -> impl FnMut(u64) -> u64 {
    let given = std::env::var("BELLHOP_TEST_SEED").ok();
    let given = given.map(|seed| seed.parse().expect("BELLHOP_TEST_SEED is a number"));
    let mut random = given.unwrap_or_else(|| u64::from(std::process::id()) << 16 | 1);
    println!("BELLHOP_TEST_SEED={random}");
    move |below| {
        // xorshift
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    }
}
