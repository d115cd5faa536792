import Logging
import MartletTransport

/// Tells what a client does: to the loops over its events, to the app's log, and notices to the app's closure as well.
struct ClientVoice: Sendable {
    private let source = ClientEventSource()
    private let logger: Logger?
    private let receiver: @Sendable (ClientNotice) -> Void

    init(logger: Logger?, notify: @escaping @Sendable (ClientNotice) -> Void) {
        self.logger = logger
        receiver = notify
    }

    /// What is told from now on.
    func listen() -> ClientEvents { ClientEvents(source.listen()) }

    /// Tells an event.
    func tell(_ event: ClientEvent) {
        ClientLog.write(event, to: logger)
        source.send(event)
    }

    /// Tells a notice.
    func notify(_ notice: ClientNotice) {
        tell(.notice(notice))
        receiver(notice)
    }

    /// Tells a sentence about the state directory.
    func notify(ofState sentence: String) { notify(.init(kind: .state, message: sentence)) }

    /// Takes what a transfer has moved.
    var followTransfer: @Sendable (TransferProgress) -> Void {
        { [self] progress in tell(.bytes(progress)) }
    }
}
