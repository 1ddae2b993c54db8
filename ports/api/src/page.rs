//! Lists: a page of items, and where the next page begins.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A page of a list, newest first if the list is ordered by time.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct List<T> {
    pub items: Vec<T>,
    /// Pass it as `cursor` to get the next page; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T> List<T> {
    /// A list that fits one page.
    pub fn all(items: Vec<T>) -> Self {
        Self { items, next: None }
    }

    /// The page of a whole list that a query asks for. `key` names an item and is the cursor after it; `None` where the
    /// cursor names none of them.
    pub fn page(items: Vec<T>, query: &PageQuery, key: impl Fn(&T) -> String) -> Option<Self> {
        let begin = match &query.cursor {
            None => 0,
            Some(cursor) => 1 + items.iter().position(|item| key(item) == *cursor)?,
        };
        let limit = query.limit() as usize;
        let more = items.len() > begin + limit;
        let items: Vec<T> = items.into_iter().skip(begin).take(limit).collect();
        let next = items.last().filter(|_| more).map(key);
        Some(Self { items, next })
    }
}

/// Page of a list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Items per page: 1 to 1000; 100 if absent.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The `next` of the previous page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl PageQuery {
    pub const LIMIT_DEFAULT: u32 = 100;
    /// One answer stays well below a megabyte.
    pub const LIMIT_MAX: u32 = 1_000;

    /// The limit in force, held within its range.
    pub fn limit(&self) -> u32 {
        self.limit.unwrap_or(Self::LIMIT_DEFAULT).clamp(1, Self::LIMIT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(limit: u32, cursor: Option<&str>) -> Option<List<u32>> {
        let query = PageQuery {
            limit: Some(limit),
            cursor: cursor.map(str::to_owned),
        };
        List::page(vec![1, 2, 3, 4, 5], &query, u32::to_string)
    }

    #[test]
    fn pages_cover_a_list_once() {
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let list = page(2, cursor.as_deref()).expect("a cursor of ours");
            seen.extend(list.items);
            cursor = list.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, [1, 2, 3, 4, 5]);
        assert_eq!(page(5, None).expect("whole").next, None);
        assert!(page(2, Some("x")).is_none());
    }
}
