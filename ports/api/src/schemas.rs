//! Schemas of the shared nouns that serialise themselves.

use std::borrow::Cow;

use piecework_model::{JobState, ResultState, Role, Scope};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{KnownFormat, ObjectBuilder, OneOfBuilder, Schema, SchemaFormat, Type},
    },
};

/// The schema of [`piecework_model::Credits`]: a number below 2^53 in size, a decimal string above.
#[derive(Debug)]
pub struct Ucr;

impl PartialSchema for Ucr {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .build();
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^-?[0-9]{1,39}$"))
            .build();
        OneOfBuilder::new()
            .item(number)
            .item(text)
            .description(Some("micro-credits; a string where a JSON number would lose digits"))
            .into()
    }
}

impl ToSchema for Ucr {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Ucr")
    }
}

/// The schema of a noun that is written by its name.
macro_rules! named {
    ($schema:ident of $noun:ident, $description:expr) => {
        #[derive(Debug)]
        pub struct $schema;

        impl PartialSchema for $schema {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .enum_values(Some($noun::ALL.map($noun::as_str)))
                    .description($description)
                    .into()
            }
        }

        impl ToSchema for $schema {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($noun))
            }
        }
    };
}

named!(RoleName of Role, Some("A role of an account on the network."));
named!(ScopeName of Scope, Some("What a token allows. Scopes do not include one another, except that `admin` includes all."));
named!(
    JobStateName of JobState,
    Some("```text\nqueued -> running -> succeeded | failed | timed_out\n   |         `-----> cancelled\n   `-> cancelled | expired\n```")
);
named!(ResultStateName of ResultState, None::<String>);
