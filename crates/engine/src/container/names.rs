//! Names of containers: the rules for given ones, and made-up ones (`adjective_surname`).

use rand::Rng;
use rand::seq::IndexedRandom;

use crate::error::{EngineError, Result};

/// How a container at anchor may feel.
const ADJECTIVES: &[&str] = &[
    "able", "adrift", "afloat", "agile", "alert", "ample", "arctic", "austral", "balmy", "bold", "boreal",
    "brave", "breezy", "brisk", "buoyant", "calm", "candid", "charted", "clear", "coastal", "cosy", "daring",
    "deep", "distant", "eager", "eastern", "faithful", "fathomed", "fearless", "fervent", "fluent",
    "gallant", "gentle", "gleaming", "hardy", "hearty", "honest", "humble", "jolly", "keen", "kind",
    "lively", "loyal", "lucid", "lunar", "mellow", "merry", "mighty", "nimble", "noble", "northern",
    "patient", "placid", "polar", "proud", "quick", "quiet", "ready", "roving", "sailing", "serene", "sober",
    "solar", "southern", "stately", "steady", "stellar", "sturdy", "sunny", "swift", "tidal", "tranquil",
    "trim", "trusty", "valiant", "vivid", "western", "windward", "witty", "zealous",
];

/// Who drew the charts, followed them, or laid the wires.
const SURNAMES: &[&str] = &[
    "amundsen",
    "baffin",
    "baret",
    "barents",
    "behaim",
    "bering",
    "blaeu",
    "boyle",
    "byron",
    "cabot",
    "cassini",
    "cerf",
    "clarke",
    "coleman",
    "cook",
    "cresques",
    "crowther",
    "dampier",
    "davies",
    "delisle",
    "diaz",
    "drake",
    "ehrenberg",
    "elcano",
    "engelbart",
    "eratosthenes",
    "ericson",
    "estrin",
    "evans",
    "feinler",
    "fernandez",
    "flinders",
    "floyd",
    "franklin",
    "frobisher",
    "gama",
    "germanus",
    "halley",
    "hanno",
    "harrison",
    "henson",
    "hipparchus",
    "hondius",
    "hopper",
    "hudson",
    "humboldt",
    "idrisi",
    "jacobson",
    "kahn",
    "kleinrock",
    "lamarr",
    "lamb",
    "liming",
    "lovelace",
    "magellan",
    "magnus",
    "mallory",
    "marconi",
    "maury",
    "mercator",
    "metcalfe",
    "munster",
    "nansen",
    "nobile",
    "orellana",
    "ortelius",
    "park",
    "pausanias",
    "perlman",
    "pigafetta",
    "polo",
    "postel",
    "ptolemy",
    "pytheas",
    "quiros",
    "rennell",
    "ross",
    "sacagawea",
    "scott",
    "shackleton",
    "shannon",
    "strabo",
    "tasman",
    "tharp",
    "torres",
    "tupaia",
    "vespucci",
    "vesconte",
    "vizcaino",
    "waldseemuller",
    "wallis",
    "wegener",
    "wheeler",
    "zheng",
];

/// A made-up name; later attempts get a digit, as the plain names are running out.
pub(crate) fn random(attempt: u32) -> String {
    let mut rng = rand::rng();
    let adjective = ADJECTIVES.choose(&mut rng).copied().unwrap_or("nameless");
    let surname = SURNAMES.choose(&mut rng).copied().unwrap_or("sailor");
    if attempt < 2 {
        format!("{adjective}_{surname}")
    } else {
        let digits = 10_u32.saturating_pow(attempt - 1);
        format!("{adjective}_{surname}{}", rng.random_range(0..digits))
    }
}

/// Checks a given name, and strips the slash that the API may put before it.
pub(crate) fn check(name: &str) -> Result<&str> {
    let plain = name.strip_prefix('/').unwrap_or(name);
    let mut bytes = plain.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let mut rest = 0;
    let valid = first
        && bytes.all(|b| {
            rest += 1;
            b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')
        });
    if valid && rest > 0 {
        Ok(plain)
    } else {
        Err(EngineError::invalid(format!(
            "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_names_are_valid() {
        for attempt in 0..6 {
            let name = random(attempt);
            assert!(check(&name).is_ok(), "{name}");
            assert_eq!(name.chars().any(|c| c.is_ascii_digit()), attempt >= 2, "{name}");
        }
        for word in ADJECTIVES.iter().chain(SURNAMES) {
            assert!(word.bytes().all(|b| b.is_ascii_lowercase()), "{word}");
        }
    }

    #[test]
    fn the_rules_are_dockers() {
        assert_eq!(check("/web-1.x_y").unwrap(), "web-1.x_y");
        for bad in ["", "/", "a", "_a", "-ab", "a b", "a/b", "//ab", "né", "ab\n"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
