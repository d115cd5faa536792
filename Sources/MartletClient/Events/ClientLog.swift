import Logging

/// Writes a client's events to an app's log: constant sentences, what differs in the metadata.
enum ClientLog {
    /// Writes one event; passing ones are told by the event stream alone.
    static func write(_ event: ClientEvent, to logger: Logger?) {
        guard let logger else { return }
        switch event {
        case .phase(let phase): logger.debug("A phase begins", metadata: ["client.phase": "\(phase.rawValue)"])
        case .assigned(let run, let round, let evaluates):
            logger.info(
                "Work has come",
                metadata: ["run.id": "\(run)", "round.number": "\(round)", "assignment.evaluates": "\(evaluates)"]
            )
        case .accepted(let run, let round, let count):
            logger.info(
                "An update was accepted",
                metadata: ["run.id": "\(run)", "round.number": "\(round)", "update.bytes": "\(count)"]
            )
        case .refused(let reason, _):
            // The sentence may say things about the data, and a log may leave the device.
            logger.notice("Work ended without an accepted update", metadata: ["reason": "\(reason.code)"])
        case .noWork(let reason, let seconds):
            logger.debug("There is no work", metadata: ["reason": "\(reason.code)", "retry.seconds": "\(seconds)"])
        case .finished: logger.notice("This client was revoked")
        case .notice(let notice):
            logger.warning("Something about the client's surroundings", metadata: ["notice": "\(notice.message)"])
        case .progress, .bytes: break
        }
    }
}
