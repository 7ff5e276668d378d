//! A server that plays a script: for each write, what it says and whether it does it. Speaks as much of MongoDB's protocol (OP_MSG, and
//! OP_QUERY for the first hello) as a driver needs to insert documents.

use mongodb::bson::{Bson, Document, doc};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const OP_REPLY: i32 = 1;
const OP_QUERY: i32 = 2004;
const OP_MSG: i32 = 2013;
/// The flag of a checksum behind the message.
const CHECKSUM_PRESENT: u32 = 1;
const MESSAGE_BYTES_MAX: usize = 48_000_000;

/// What becomes of one insert.
#[derive(Clone, Debug)]
pub enum Turn {
    /// All goes well.
    Good,
    /// The documents are stored, the answer never comes.
    ReplyLost,
    /// The connection ends before anything is done.
    Cut,
    /// Half of the documents are stored, then the connection ends.
    CutInTheMiddle,
    /// The primary has stepped down.
    NotPrimary,
    /// Stored, but not by as many as asked for.
    WriteConcernFails,
    /// Documents whose `path` is this are refused with the code.
    Poison(&'static str, i32),
    /// Each document of the insert is refused with the code: the state of the server.
    RefusesEach(i32),
    /// From now on documents whose `path` is this are refused with the code, whatever else is in the insert.
    PoisonEver(&'static str, i32),
    /// Any write is refused as a whole with the code: the state of the server.
    Refused(i32),
    /// From now on each insert with a document whose `path` is this is refused as a whole with the code.
    Spoils(&'static str, i32),
}

#[derive(Default)]
struct State {
    script: VecDeque<Turn>,
    /// By `_id`, as text.
    documents: BTreeMap<String, Document>,
    /// Documents that would have been stored twice but for their `_id`.
    doubles: u64,
    inserts: u64,
    /// Index builds that have begun, and whether they hang.
    index_builds: u64,
    index_builds_hang: bool,
}

/// The server.
pub struct FakeMongo {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl FakeMongo {
    /// Plays the script, then does everything well.
    pub fn start(script: Vec<Turn>) -> FakeMongo {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let state = Arc::new(Mutex::new(State { script: script.into(), ..State::default() }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                // Ends with the connection.
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        FakeMongo { port, state }
    }

    /// Connection string.
    pub fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port)
    }

    /// All documents.
    pub fn documents(&self) -> Vec<Document> {
        lock(&self.state).documents.values().cloned().collect()
    }

    /// Turns of the script that are left.
    pub fn turns_left(&self) -> usize {
        lock(&self.state).script.len()
    }

    /// Documents that came again.
    pub fn doubles(&self) -> u64 {
        lock(&self.state).doubles
    }

    /// Index builds do not end from now on, as on a large collection; or they end.
    pub fn hang_index_builds(&self, hang: bool) {
        lock(&self.state).index_builds_hang = hang;
    }

    /// Index builds that have begun.
    pub fn index_builds(&self) -> u64 {
        lock(&self.state).index_builds
    }

    /// Insert commands.
    pub fn inserts(&self) -> u64 {
        lock(&self.state).inserts
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    while let Ok((id, op, body)) = read_message(&mut stream) {
        let answered = match op {
            OP_QUERY => reply_to_query(&mut stream, id),
            OP_MSG => {
                match parse(&body).and_then(|(command, documents)| answer(&command, documents, state)) {
                    Some(reply) => reply_to_message(&mut stream, id, &reply),
                    None => return,
                }
            }
            _ => return,
        };
        if answered.is_err() {
            return;
        }
    }
}

fn hello() -> Document {
    doc! {
        "ok": 1.0, "helloOk": true, "ismaster": true, "isWritablePrimary": true, "maxBsonObjectSize": 16_777_216,
        "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000, "minWireVersion": 0, "maxWireVersion": 21, "readOnly": false,
    }
}

/// `None`: the connection ends.
fn answer(command: &Document, documents: Vec<Document>, state: &Mutex<State>) -> Option<Document> {
    match command.keys().next()?.as_str() {
        "hello" | "ismaster" | "isMaster" => Some(hello()),
        "createIndexes" => {
            lock(state).index_builds += 1;
            while lock(state).index_builds_hang {
                std::thread::sleep(Duration::from_millis(5));
            }
            Some(doc! { "ok": 1.0 })
        }
        "insert" => insert(documents, &mut lock(state)),
        "update" => {
            let mut state = lock(state);
            let Some(Turn::Refused(code)) = state.script.front().cloned() else {
                return Some(doc! { "ok": 1.0, "n": 0, "nModified": 0 });
            };
            state.script.pop_front();
            Some(refused(code))
        }
        "find" => {
            let state = lock(state);
            let asked =
                command.get_document("filter").ok()?.get_document("_id").ok()?.get_array("$in").ok()?;
            let found = asked.iter().filter(|id| state.documents.contains_key(&id.to_string()));
            let found: Vec<Bson> = found.map(|id| Bson::from(doc! { "_id": id })).collect();
            Some(doc! { "ok": 1.0, "cursor": { "id": 0_i64, "ns": "l.c", "firstBatch": found } })
        }
        _ => Some(doc! { "ok": 1.0 }),
    }
}

fn refused(code: i32) -> Document {
    doc! { "ok": 0.0, "code": code, "codeName": "Refused", "errmsg": "refused as a whole" }
}

fn insert(documents: Vec<Document>, state: &mut State) -> Option<Document> {
    state.inserts += 1;
    let turn = state.script.pop_front().unwrap_or(Turn::Good);
    match turn {
        Turn::Refused(code) => return Some(refused(code)),
        Turn::Spoils(path, code) => {
            state.script.push_front(turn.clone());
            if documents.iter().any(|document| document.get_str("path").is_ok_and(|found| found == path)) {
                return Some(refused(code));
            }
        }
        Turn::PoisonEver(..) => state.script.push_front(turn.clone()),
        Turn::Cut => return None,
        Turn::NotPrimary => {
            return Some(
                doc! { "ok": 0.0, "code": 10_107, "codeName": "NotWritablePrimary", "errmsg": "not primary" },
            );
        }
        _ => {}
    }
    let count = if matches!(turn, Turn::CutInTheMiddle) { documents.len() / 2 } else { documents.len() };
    let (mut errors, mut stored) = (Vec::new(), 0);
    for (index, document) in documents.into_iter().take(count).enumerate() {
        let index = i32::try_from(index).ok()?;
        let id = document.get("_id")?.to_string();
        let is_at = |path: &str| document.get_str("path").is_ok_and(|found| found == path);
        let refused_with = match turn {
            Turn::Poison(path, code) | Turn::PoisonEver(path, code) if is_at(path) => Some(code),
            Turn::RefusesEach(code) => Some(code),
            _ => None,
        };
        if let Some(code) = refused_with {
            errors.push(Bson::from(doc! { "index": index, "code": code, "errmsg": "poison" }));
            continue;
        }
        match state.documents.entry(id) {
            Entry::Occupied(_) => {
                state.doubles += 1;
                let text = "E11000 duplicate key error collection: l.c index: _id_ dup key: { _id: 1 }";
                errors.push(Bson::from(doc! { "index": index, "code": 11_000, "errmsg": text }));
            }
            Entry::Vacant(place) => {
                place.insert(document);
                stored += 1;
            }
        }
    }
    let mut reply = doc! { "ok": 1.0, "n": stored };
    if !errors.is_empty() {
        reply.insert("writeErrors", errors);
    }
    match turn {
        Turn::ReplyLost | Turn::CutInTheMiddle => return None,
        Turn::WriteConcernFails => {
            let failed = doc! { "code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting for replication timed out" };
            reply.insert("writeConcernError", failed);
        }
        _ => {}
    }
    Some(reply)
}

/// The command, and the documents that stand behind it.
fn parse(body: &[u8]) -> Option<(Document, Vec<Document>)> {
    let flags = u32::from_le_bytes(*body.first_chunk()?);
    let mut rest = &body[4..];
    if flags & CHECKSUM_PRESENT != 0 {
        rest = rest.get(..rest.len().checked_sub(4)?)?;
    }
    let (mut command, mut documents) = (None, Vec::new());
    while let Some((kind, behind)) = rest.split_first() {
        let length = u32::from_le_bytes(*behind.first_chunk()?) as usize;
        let section = behind.get(..length)?;
        rest = &behind[length..];
        if *kind == 0 {
            command = Some(Document::from_reader(section).ok()?);
            continue;
        }
        let name_end = 4 + section[4..].iter().position(|byte| *byte == 0)?;
        let mut documents_bytes = &section[name_end + 1..];
        while !documents_bytes.is_empty() {
            documents.push(Document::from_reader(&mut documents_bytes).ok()?);
        }
    }
    Some((command?, documents))
}

fn read_message(stream: &mut TcpStream) -> io::Result<(i32, i32, Vec<u8>)> {
    let mut head = [0; 16];
    stream.read_exact(&mut head)?;
    let number = |at: usize| i32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let length = usize::try_from(number(0)).unwrap_or(0).clamp(16, MESSAGE_BYTES_MAX);
    let mut body = vec![0; length - 16];
    stream.read_exact(&mut body)?;
    Ok((number(4), number(12), body))
}

fn reply_to_message(stream: &mut TcpStream, to: i32, reply: &Document) -> io::Result<()> {
    let mut body = vec![0; 5];
    body.extend(reply.to_vec().map_err(io::Error::other)?);
    write_message(stream, to, OP_MSG, &body)
}

fn reply_to_query(stream: &mut TcpStream, to: i32) -> io::Result<()> {
    let mut body = Vec::new();
    for number in [8_i32, 0, 0, 0, 1] {
        // Flags, cursor id (8 bytes), first number, count.
        body.extend(number.to_le_bytes());
    }
    body.extend(hello().to_vec().map_err(io::Error::other)?);
    write_message(stream, to, OP_REPLY, &body)
}

fn write_message(stream: &mut TcpStream, to: i32, op: i32, body: &[u8]) -> io::Result<()> {
    let length = i32::try_from(body.len() + 16).map_err(io::Error::other)?;
    let mut message = Vec::with_capacity(body.len() + 16);
    for number in [length, 1, to, op] {
        message.extend(number.to_le_bytes());
    }
    message.extend_from_slice(body);
    stream.write_all(&message)
}
