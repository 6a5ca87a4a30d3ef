//! Server-sent events as they come over the network, in pieces. Pure; after the WHATWG's "Server-sent events".

/// Longest event read, in bytes: a message of an acceptor has under 2 KiB.
const EVENT_BYTES_MAX: usize = 64 * 1024;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerEvent {
    /// Its name; `message` when it has none.
    pub name: String,
    /// The last id given so far; empty when there was none.
    pub id: String,
    /// Its lines, joined.
    pub data: String,
}

/// The stream holds an event that is too long to be one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {EVENT_BYTES_MAX} bytes")]
pub struct EventTooLong;

/// Puts events together.
#[derive(Debug, Default)]
pub struct EventParser {
    line: Vec<u8>,
    name: String,
    id: String,
    data: String,
}

impl EventParser {
    /// Takes the next piece of the stream; gives the events it completes.
    ///
    /// # Errors
    /// When an event is too long. The stream is of no use then.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<ServerEvent>, EventTooLong> {
        let mut events = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + self.data.len() + part.len() > EVENT_BYTES_MAX {
                return Err(EventTooLong);
            }
            self.line.extend_from_slice(part);
            if self.line.last() == Some(&b'\n') {
                let line = std::mem::take(&mut self.line);
                let line = String::from_utf8_lossy(&line);
                events.extend(self.take_line(line.trim_end_matches(['\r', '\n'])));
            }
        }
        Ok(events)
    }

    fn take_line(&mut self, line: &str) -> Option<ServerEvent> {
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            let named = !name.is_empty() || !data.is_empty();
            return named.then(|| ServerEvent {
                name: if name.is_empty() { "message".to_owned() } else { name },
                id: self.id.clone(),
                data: data.strip_suffix('\n').unwrap_or(&data).to_owned(),
            });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "id" => value.clone_into(&mut self.id),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            // Comments, `retry`, and what others may add.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, id: &str, data: &str) -> ServerEvent {
        ServerEvent {
            name: name.to_owned(),
            id: id.to_owned(),
            data: data.to_owned(),
        }
    }

    #[test]
    fn events_come_out_however_the_stream_is_cut() {
        let stream = ": open\nretry: 1000\n\nevent: message\nid: 1-0\ndata: {\"a\":1}\n\n:\n\ndata: x\r\ndata:y\r\n\r\n\
                      event: end\nid: 1-7\n\nevent: cut";
        let expected = [
            event("message", "1-0", "{\"a\":1}"),
            event("message", "1-0", "x\ny"),
            event("end", "1-7", ""),
        ];
        for step in 1..=stream.len() {
            let mut parser = EventParser::default();
            let pieces = stream.as_bytes().chunks(step);
            let events: Vec<_> = pieces.flat_map(|piece| parser.feed(piece).unwrap()).collect();
            assert_eq!(events, expected, "pieces of {step}");
        }
    }

    #[test]
    fn what_has_no_end_is_refused() {
        let mut parser = EventParser::default();
        let line = vec![b'x'; EVENT_BYTES_MAX];
        assert_eq!(parser.feed(&line), Ok(vec![]));
        assert_eq!(parser.feed(b"x"), Err(EventTooLong));
        let mut parser = EventParser::default();
        let lines = "data: 0123456789\n".repeat(EVENT_BYTES_MAX / 10);
        assert_eq!(parser.feed(lines.as_bytes()), Err(EventTooLong));
    }
}
