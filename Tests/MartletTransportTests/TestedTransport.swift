import MartletTransport
import MartletURLSession
import Testing

/// The transports that Martlet brings: each test of the suite runs over both.
enum TestedTransport: String, CaseIterable, Sendable, CustomTestStringConvertible {
    case curl
    case urlSession

    var testDescription: String { rawValue }

    func make() -> any Transport {
        switch self {
        case .curl: CurlTransport(security: TransportSecurity())
        case .urlSession: URLSessionTransport(security: TransportSecurity())
        }
    }
}
