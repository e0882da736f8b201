//! Folding what a run takes in, as far as memory has room for it.

use super::*;

impl<S: LogSource, D: Store, T: Time> Run<'_, S, D, T> {
    pub(super) async fn fold_changes(&mut self, batch: &TailBatch) -> Result<()> {
        // Whatever any row holds was appended by then, but for what others write who lead no more.
        let known = self.documents.ask.seen();
        self.documents.ask.has_seen(Some(batch.position.cluster_time));
        let (events, chunks) = (self.intake.events.clone(), self.intake.chunks.clone());
        let rows = &self.projector.collection;
        let (mut chunk, mut passed) = (chunks.chunk(), 0);
        for change in batch.changes.documents()? {
            match TailItem::decode(change?, |name| name == events || name == *rows)? {
                TailItem::Event { events: name, event, cluster_time, wall_time }
                    if name == events =>
                {
                    if !self.intake.takes(cluster_time) {
                        continue;
                    }
                    passed += 1;
                    let oldest = &mut self.documents.memory.oldest;
                    *oldest = oldest.or(wall_time);
                    chunk.push(event, cluster_time > known);
                }
                TailItem::Bodiless { events: name, key } if name == events => {
                    passed += 1;
                    self.fetch(EventKey::from_raw(key).map_err(|error| error.to_string()));
                }
                item if item.moves(&events) => {
                    self.fold_streamed(chunk.take()).await?;
                    self.intake.moved(matches!(item, TailItem::Arrived { .. }));
                    self.find_log_again().await?;
                    // What it got under another name never came through the stream.
                    self.intake.scan_again(batch.position.cluster_time);
                }
                TailItem::Deleted { rows: name, id } if name == rows => {
                    row_taken_away(&mut self.documents, id)
                }
                item if item.moves(rows) => {
                    self.fold_streamed(chunk.take()).await?;
                    tracing::warn!(rows, "the rows were taken away: they are made again");
                    self.forget().await?;
                    self.intake.scan_again(batch.position.cluster_time);
                }
                _ => {}
            }
            if chunk.is_full() {
                self.fold_streamed(chunk.take()).await?;
                self.make_room().await?;
            }
        }
        self.fold_streamed(chunk.take()).await?;
        self.documents.tell_suspects();
        self.documents.recheck_urgent().await?;
        self.commits.folded(batch, passed, self.projector.time.now());
        Ok(())
    }

    pub(super) async fn fold_streamed(&mut self, mut events: Vec<Arrival<'_>>) -> Result<()> {
        self.intake.leave_to_scan(&mut events);
        self.fold(events).await
    }

    pub(super) async fn fold_scanned(&mut self, mut events: Vec<Arrival<'_>>) -> Result<()> {
        while !events.is_empty() {
            let (news, rest) = self.intake.pick_scanned(&mut self.documents, events).await?;
            self.fold(news).await?;
            events = rest;
            if !events.is_empty() {
                self.make_room().await?;
            }
        }
        Ok(())
    }

    /// Folds events, and writes in between what there is no room for.
    pub(super) async fn fold(&mut self, mut events: Vec<Arrival<'_>>) -> Result<()> {
        loop {
            events = self.documents.fold(events).await?;
            if events.is_empty() {
                return Ok(());
            }
            self.make_room().await?;
        }
    }

    /// The stream left out the body of a large event: it is read from the log.
    pub(super) fn fetch(&mut self, key: std::result::Result<EventKey, String>) {
        match key {
            Ok(key) if self.projector.part.holds(&key.document) => {
                self.documents.memory.left_out(&key.document, key.version);
            }
            Ok(_) => {}
            Err(error) => self.observer().homeless_event(&error),
        }
    }
}
