import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Publish one question to the fleet and await the answer, with org.apache.kafka:kafka-clients alone. Prints the Response as JSON.
 *
 * <p>No answer within a minute ends it with status 1; that the request was refused, expired or failed is no error but a status of its response.
 */
public final class PublishAndAwait {
    private static final Duration PATIENCE = Duration.ofSeconds(60);

    public static void main(String[] args) throws Exception {
        String question = args.length > 0 ? args[0] : "What is a message broker?";
        String id = UUID.randomUUID().toString();
        String key = "acme/" + id;
        Instant deadline = Instant.now().plus(PATIENCE);
        String request = """
            {"request_id": "%s", "tenant": "acme", "feature": "support-bot", "deadline_at": "%s",
             "messages": [{"role": "user", "content": %s}]}""".formatted(id, deadline, quoted(question));

        String broker = System.getenv().getOrDefault("BOOTSTRAP", "localhost:9092");
        // No group: every instance of a service reads all responses and picks its own.
        try (var consumer = new KafkaConsumer<>(
                    Map.<String, Object>of("bootstrap.servers", broker, "allow.auto.create.topics", false),
                    new StringDeserializer(), new StringDeserializer());
                var producer = new KafkaProducer<>(
                    Map.<String, Object>of("bootstrap.servers", broker, "acks", "all"),
                    new StringSerializer(), new StringSerializer())) {
            List<TopicPartition> partitions = consumer.partitionsFor("llm.responses").stream()
                .map(found -> new TopicPartition(found.topic(), found.partition())).toList();
            consumer.assign(partitions);
            consumer.seekToEnd(partitions);
            // Where reading begins must be known before anything is asked, or a quick answer is missed.
            partitions.forEach(consumer::position);

            producer.send(new ProducerRecord<>("llm.requests", key, request)).get();
            while (Instant.now().isBefore(deadline.plusSeconds(5))) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofSeconds(1))) {
                    if (key.equals(record.key())) {
                        System.out.write((record.value() + "\n").getBytes(StandardCharsets.UTF_8));
                        System.out.flush();
                        return;
                    }
                }
            }
        }
        System.err.println("no answer within a minute: is the fleet running?");
        System.exit(1);
    }

    /** A JSON string; a program that has a JSON library uses that. */
    private static String quoted(String text) {
        StringBuilder json = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                json.append('\\').append(c);
            } else if (c < ' ') {
                json.append(String.format("\\u%04x", (int) c));
            } else {
                json.append(c);
            }
        }
        return json.append('"').toString();
    }
}
