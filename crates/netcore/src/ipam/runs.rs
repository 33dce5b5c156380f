//! A set of addresses kept as runs of neighbours, so that the first free one is found in
//! logarithmic time however full a subnet is.

use std::collections::BTreeMap;

/// Disjoint inclusive runs, first -> last, never adjacent to each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    runs: BTreeMap<u128, u128>,
}

impl Runs {
    /// The run that holds `value`.
    fn around(&self, value: u128) -> Option<(u128, u128)> {
        let (&first, &last) = self.runs.range(..=value).next_back()?;
        (value <= last).then_some((first, last))
    }

    pub(super) fn contains(&self, value: u128) -> bool {
        self.around(value).is_some()
    }

    /// False if it was there already.
    pub(super) fn insert(&mut self, value: u128) -> bool {
        if self.contains(value) {
            return false;
        }
        let mut first = value;
        let mut last = value;
        if let Some((before, _)) = value.checked_sub(1).and_then(|left| self.around(left)) {
            first = before;
        }
        if let Some((after, end)) = value.checked_add(1).and_then(|right| self.around(right)) {
            self.runs.remove(&after);
            last = end;
        }
        self.runs.insert(first, last);
        true
    }

    /// False if it was not there.
    pub(super) fn remove(&mut self, value: u128) -> bool {
        let Some((first, last)) = self.around(value) else { return false };
        self.runs.remove(&first);
        if first < value {
            self.runs.insert(first, value - 1);
        }
        if value < last {
            self.runs.insert(value + 1, last);
        }
        true
    }

    /// The lowest value of `first..=last` that is not in the set.
    pub(super) fn first_gap(&self, first: u128, last: u128) -> Option<u128> {
        let candidate = match self.around(first) {
            None => first,
            Some((_, end)) => end.checked_add(1)?,
        };
        (candidate <= last).then_some(candidate)
    }

    /// How many values of `first..=last` are in the set.
    pub(super) fn count_within(&self, first: u128, last: u128) -> u128 {
        let head = self.around(first).map(|(start, _)| start).unwrap_or(first);
        self.runs
            .range(head..=last)
            .map(|(&start, &end)| end.min(last).saturating_sub(start.max(first)).saturating_add(1))
            .fold(0, u128::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Runs;

    proptest! {
        #[test]
        fn runs_are_a_set(ops in prop::collection::vec((any::<bool>(), 0_u128..40), 0..120)) {
            let mut runs = Runs::default();
            let mut set = BTreeSet::new();
            for (insert, value) in ops {
                if insert {
                    prop_assert_eq!(runs.insert(value), set.insert(value));
                } else {
                    prop_assert_eq!(runs.remove(value), set.remove(&value));
                }
                for from in 0..42 {
                    let gap = (from..42).find(|v| !set.contains(v));
                    prop_assert_eq!(runs.first_gap(from, 41), gap);
                    prop_assert_eq!(runs.count_within(from, 41), set.range(from..).count() as u128);
                }
                let starts: Vec<_> = runs.runs.iter().collect();
                prop_assert!(starts.windows(2).all(|w| *w[0].1 + 1 < *w[1].0), "adjacent runs are one run");
            }
        }
    }

    #[test]
    fn the_ends_of_the_number_line() {
        let mut runs = Runs::default();
        assert!(runs.insert(u128::MAX) && runs.insert(0));
        assert_eq!(runs.first_gap(u128::MAX, u128::MAX), None);
        assert_eq!(runs.first_gap(0, 5), Some(1));
    }
}
