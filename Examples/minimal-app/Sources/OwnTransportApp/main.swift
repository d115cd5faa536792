import PriceTrainer

try await Devices.run(Array(CommandLine.arguments.dropFirst()), over: SocketTransport())
