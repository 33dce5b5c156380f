use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::piece::ENTRIES;
use super::*;

/// Insertions and removals.
fn edits(most: usize) -> impl Strategy<Value = Vec<(u16, Option<u8>)>> {
    vec((0..2000_u16, prop::option::weighted(0.6, any::<u8>())), 0..most)
}

fn edit(map: &mut SharedMap<u16, u8>, model: &mut BTreeMap<u16, u8>, edits: &[(u16, Option<u8>)]) {
    for (key, value) in edits {
        match value {
            Some(value) => assert_eq!(map.insert(*key, *value), model.insert(*key, *value)),
            None => assert_eq!(map.remove(key), model.remove(key)),
        }
    }
}

fn check(map: &SharedMap<u16, u8>, model: &BTreeMap<u16, u8>) {
    assert!(map.iter().eq(model.iter()));
    assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
    if let Some(root) = map.root() {
        check_piece(root, root.height());
        assert_eq!(
            (sum(root), least(root)),
            (model.keys().map(|key| u64::from(*key)).sum(), map.keys().next().copied())
        );
    }
    assert!((0..2000).all(|key| map.get(&key) == model.get(&key)));
    for from in (0..2002).step_by(77) {
        assert!(map.iter_from(&from).eq(model.range(from..)));
    }
}

fn check_piece(piece: &Piece<u16, u8>, height: usize) {
    let below = piece.entries().map_or_else(|| piece.pieces().count(), <[_]>::len);
    assert!((1..=piece.room()).contains(&below), "{below}");
    assert_eq!(piece.entries().is_some(), height == 0);
    piece.pieces().for_each(|piece| check_piece(piece, height - 1));
}

fn sum(piece: &Piece<u16, u8>) -> u64 {
    *piece.noted(|piece| match piece.entries() {
        Some(entries) => entries.iter().map(|(key, _)| u64::from(*key)).sum::<u64>(),
        None => piece.pieces().map(sum).sum(),
    })
}

/// Another thing to note.
fn least(piece: &Piece<u16, u8>) -> Option<u16> {
    *piece.noted(|piece| match piece.entries() {
        Some(entries) => entries.first().map(|(key, _)| *key),
        None => piece.pieces().next().and_then(least),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn it_is_an_ordered_map_and_copies_stay_as_they_are(first in edits(3000), second in edits(300)) {
        let (mut map, mut model) = (SharedMap::new(), BTreeMap::new());
        edit(&mut map, &mut model, &first);
        check(&map, &model);
        let (mut copy, mut model_copy) = (map.clone(), model.clone());
        edit(&mut copy, &mut model_copy, &second);
        check(&map, &model);
        check(&copy, &model_copy);
        let differ = |one: &BTreeMap<u16, u8>, other: &BTreeMap<u16, u8>| {
            let entries = one.iter().filter(|(key, value)| other.get(*key) != Some(*value));
            entries.map(|(key, value)| (*key, *value)).collect::<Vec<_>>()
        };
        let got = |one: &SharedMap<u16, u8>, other| {
            one.changes_from(other).map(|(key, value)| (*key, *value)).collect::<Vec<_>>()
        };
        prop_assert_eq!(got(&map, &copy), differ(&model, &model_copy));
        prop_assert_eq!(got(&copy, &map), differ(&model_copy, &model));
        prop_assert_eq!(map == copy, model == model_copy);
        let built: SharedMap<u16, u8> = model_copy.clone().into_iter().collect();
        prop_assert!(built == copy);
    }
}

/// A key that counts how often it is looked at.
#[derive(Clone, Debug)]
struct Counted<'a>(u32, &'a Cell<u32>);

impl Ord for Counted<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.1.set(self.1.get() + 1);
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Counted<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Counted<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Counted<'_> {}

#[test]
fn one_more_of_ten_thousand_is_found_without_looking_at_them() {
    let looks = Cell::new(0);
    let before: SharedSet<Counted<'_>> = (0..10_000).map(|n| Counted(2 * n, &looks)).collect();
    let mut after = before.clone();
    looks.set(0);
    after.insert(Counted(9999, &looks), ());
    assert!(before != after);
    let come: Vec<u32> = after.changes_from(&before).map(|(key, ())| key.0).collect();
    assert_eq!((come, before.changes_from(&after).count()), (vec![9999], 0));
    assert!(looks.get() < 100, "{} looks", looks.get());
    after.remove(&Counted(9999, &looks));
    assert!(before == after);
}

/// The pieces that entries are in.
fn lowest<T>(piece: &Piece<T, ()>) -> usize {
    if piece.entries().is_some() { 1 } else { piece.pieces().map(lowest).sum() }
}

#[test]
fn what_shrinks_does_not_stay_in_pieces() {
    let mut set: SharedSet<u32> = (0..10_000).collect();
    set.retain(|key, ()| key % 100 == 0);
    assert_eq!(set.len(), 100);
    let pieces = set.root().map_or(0, lowest);
    assert!(pieces <= 100 / (ENTRIES / 2) * 2 + 2, "{pieces}");
    assert!(set.keys().copied().eq((0..10_000).step_by(100)));
    set.retain(|key, ()| *key == 500);
    assert_eq!(set.root().map(Piece::height), Some(0));
    set.remove(&500);
    assert!(set.root().is_none());
}

#[test]
fn only_what_is_on_the_way_of_a_change_is_worked_out_anew() {
    fn count(piece: &Piece<u32, ()>, asked: &Cell<usize>) -> usize {
        *piece.noted(|piece| {
            asked.set(asked.get() + 1);
            piece.entries().map_or_else(|| piece.pieces().map(|piece| count(piece, asked)).sum(), <[_]>::len)
        })
    }
    let asked = Cell::new(0);
    let mut set: SharedSet<u32> = (0..10_000).collect();
    let kept = set.clone();
    assert_eq!(set.root().map(|root| count(root, &asked)), Some(10_000));
    let all = asked.replace(0);
    assert!(all > 10_000 / ENTRIES, "{all}");
    set.remove(&5000);
    assert_eq!(set.root().map(|root| count(root, &asked)), Some(9999));
    let way = set.root().map_or(0, Piece::height) + 1;
    assert_eq!(asked.replace(0), way);
    assert_eq!(kept.root().map(|root| count(root, &asked)), Some(10_000));
    assert_eq!(asked.get(), 0);
}
