//! The header's JSON, `{"Route":[{…},…],"PackLen":M}`, to and from objects of strings.
//!
//! Read by hand-written visitors: `serde_json::Value` would take the last of two equal keys and build any nested
//! value that a stranger sends before it could be refused.

use crate::{BadPack, Header, ROUTE_OBJECTS_MAX, header::texts};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, error::Category};
use std::{borrow::Cow, collections::BTreeMap, fmt};

/// A header as its JSON has it.
pub(crate) struct HeaderJson {
    pub(crate) origin: Map<String, Value>,
    pub(crate) hops: Vec<Map<String, Value>>,
    pub(crate) body_len: u64,
}

impl HeaderJson {
    pub(crate) fn parse(json: &[u8]) -> Result<HeaderJson, BadPack> {
        let outer: Outer = serde_json::from_slice(json).map_err(|error| match error.classify() {
            Category::Data => BadPack::WrongType { key: "the header or its route".into() },
            _ => BadPack::NotJson(error.to_string()),
        })?;
        let mut route = outer.route.ok_or(BadPack::MissingKey { key: "Route" })??.into_iter();
        let body_len = match outer.body_len.ok_or(BadPack::MissingKey { key: "PackLen" })?? {
            Scalar::Natural(number) => number,
            Scalar::Negative => return Err(BadPack::NegativeNumber { key: "PackLen" }),
            Scalar::Text(_) | Scalar::Other => return Err(BadPack::WrongType { key: "PackLen".into() }),
        };
        let origin = route.next().ok_or(BadPack::MissingKey { key: "Route[0]" })?;
        Ok(HeaderJson { origin, hops: route.collect(), body_len })
    }
}

/// The JSON of `header` for a body of `body_len` bytes, keys in order.
pub(crate) fn write(header: &Header, body_len: usize) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Written<'a> {
        #[serde(rename = "Route")]
        route: Vec<BTreeMap<&'a str, Cow<'a, str>>>,
        #[serde(rename = "PackLen")]
        body_len: usize,
    }
    let route = std::iter::once(header.origin()).chain(header.hops.iter().map(texts)).collect();
    serde_json::to_vec(&Written { route, body_len }).expect("maps of strings to strings are always JSON")
}

/// A fault that is found while reading is kept as the value, because the errors of serde carry only text.
type Found<T> = Result<T, BadPack>;

/// The outer object. Keys we do not know are skipped, as legacy nodes do.
struct Outer {
    route: Option<Found<Vec<Map<String, Value>>>>,
    body_len: Option<Found<Scalar>>,
}

impl<'de> Deserialize<'de> for Outer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Outer, D::Error> {
        struct OuterVisitor;
        impl<'de> Visitor<'de> for OuterVisitor {
            type Value = Outer;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a header object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Outer, A::Error> {
                let mut outer = Outer { route: None, body_len: None };
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "Route" => {
                            let route = map.next_value::<Route>()?.0;
                            outer.route = Some(once(&outer.route, "Route").and(route));
                        }
                        "PackLen" => {
                            let length = map.next_value()?;
                            outer.body_len = Some(once(&outer.body_len, "PackLen").map(|()| length));
                        }
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(outer)
            }
        }
        deserializer.deserialize_map(OuterVisitor)
    }
}

fn once<T>(earlier: &Option<T>, key: &str) -> Found<()> {
    match earlier {
        Some(_) => Err(BadPack::DuplicateKey { key: key.into() }),
        None => Ok(()),
    }
}

/// The list of route objects, up to [`ROUTE_OBJECTS_MAX`].
struct Route(Found<Vec<Map<String, Value>>>);

impl<'de> Deserialize<'de> for Route {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Route, D::Error> {
        struct RouteVisitor;
        impl<'de> Visitor<'de> for RouteVisitor {
            type Value = Route;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of route objects")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Route, A::Error> {
                let mut route = Vec::new();
                let mut fault = None;
                while fault.is_none() && route.len() < ROUTE_OBJECTS_MAX {
                    match list.next_element::<RouteObject>()? {
                        None => return Ok(Route(Ok(route))),
                        Some(RouteObject(Ok(object))) => route.push(object),
                        Some(RouteObject(Err(found))) => fault = Some(found),
                    }
                }
                while list.next_element::<IgnoredAny>()?.is_some() {
                    fault = fault.or(Some(BadPack::RouteTooLong));
                }
                Ok(Route(fault.map_or(Ok(route), Err)))
            }
        }
        deserializer.deserialize_seq(RouteVisitor)
    }
}

/// One object of the route: strings by unique keys.
struct RouteObject(Found<Map<String, Value>>);

impl<'de> Deserialize<'de> for RouteObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RouteObject, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = RouteObject;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RouteObject, A::Error> {
                let mut object = Map::new();
                let mut fault = None;
                while let Some(key) = map.next_key::<String>()? {
                    let value = map.next_value::<Scalar>()?;
                    let Scalar::Text(text) = value else {
                        fault = fault.or_else(|| Some(BadPack::WrongType { key: shown(&key) }));
                        continue;
                    };
                    if object.contains_key(&key) {
                        fault = fault.or_else(|| Some(BadPack::DuplicateKey { key: shown(&key) }));
                        continue;
                    }
                    object.insert(key, Value::String(text));
                }
                Ok(RouteObject(fault.map_or(Ok(object), Err)))
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// A stranger's key as it may stand in a message.
fn shown(key: &str) -> String {
    key.chars().take(32).flat_map(char::escape_debug).collect()
}

/// Any JSON value, kept only where the format has a use for it.
enum Scalar {
    Text(String),
    Natural(u64),
    Negative,
    Other,
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalar, D::Error> {
        struct ScalarVisitor;
        impl<'de> Visitor<'de> for ScalarVisitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }
            fn visit_string<E>(self, text: String) -> Result<Scalar, E> {
                Ok(Scalar::Text(text))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar::Natural(number))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
                Ok(u64::try_from(number).map_or(Scalar::Negative, Scalar::Natural))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }
            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Scalar, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
        }
        deserializer.deserialize_any(ScalarVisitor)
    }
}
