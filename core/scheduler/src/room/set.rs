//! A set of providers: one bit for each.

/// Providers by their index in the room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderSet(Vec<u64>);

impl ProviderSet {
    pub fn contains(&self, provider: usize) -> bool {
        self.0
            .get(provider / 64)
            .is_some_and(|word| word >> (provider % 64) & 1 == 1)
    }

    pub fn set(&mut self, provider: usize, is_in: bool) {
        let index = provider / 64;
        if self.0.len() <= index {
            self.0.resize(index + 1, 0);
        }
        let bit = 1 << (provider % 64);
        if is_in {
            self.0[index] |= bit;
        } else {
            self.0[index] &= !bit;
        }
    }

    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        let words = self.0.iter().enumerate();
        words.flat_map(|(index, word)| {
            (0..64)
                .filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| 64 * index + bit)
        })
    }
}

impl FromIterator<usize> for ProviderSet {
    fn from_iter<I: IntoIterator<Item = usize>>(providers: I) -> Self {
        let mut set = Self::default();
        providers.into_iter().for_each(|provider| set.set(provider, true));
        set
    }
}
