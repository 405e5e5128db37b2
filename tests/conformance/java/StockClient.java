import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.URL;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.zip.GZIPOutputStream;

/** What a JDK without any library sends; `java StockClient.java URL` prints a line for each answer. */
public class StockClient {
    static final String INFER = "/v2/models/echo-fp32/infer";
    static String base;

    public static void main(String[] arguments) throws Exception {
        base = arguments[0];
        for (var version : HttpClient.Version.values()) {
            ask(version.name(), HttpClient.newBuilder().version(version).build());
        }
        askAsDefault();
        askOldStyle();
    }

    static void ask(String name, HttpClient client) throws Exception {
        say(name + " json", client, json(INFER, v2("[" + Float.MAX_VALUE + "," + Float.MIN_VALUE + ",-0.0]")));
        say(name + " again", client, json(INFER, v2("[1.0E10,2,3]")));
        say(name + " error", client, json("/v2/models/nothing/infer", v2("[1,2,3]")));
        say(name + " gateway error", client, json("/nowhere", "{}"));
        say(name + " metadata", client, HttpRequest.newBuilder(URI.create(base + "/v2/models/echo-fp32")).build());
        say(name + " mlflow", client, json("/invocations?model=echo-int64", "{\"inputs\": [[3.0, " + Long.MAX_VALUE + "]]}"));
        say(name + " mark", client, json(INFER, "\uFEFF" + v2("[1,2,3]")));
        say(name + " chunked", client, request(INFER).POST(stream(v2("[4,5,6]").getBytes())).build());
        say(name + " expect", client, request(INFER).expectContinue(true).POST(text(v2("[7,8,9]"))).build());
        say(name + " gzip", client, request(INFER).header("Content-Encoding", "gzip").POST(bytes(gzip(v2("[1,1,1]")))).build());
        sendBinary(name + " binary", client);
        upload(name + " upload", client);
    }

    /** As most programs do: the default client, which offers HTTP/2, and a body of a form that is declared. */
    static void askAsDefault() throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        say("default json", client, json(INFER, v2("[1,2,3]")));
        HttpResponse<String> answer = client.sendAsync(json(INFER, v2("[3,2,1]")), BodyHandlers.ofString()).get();
        System.out.println("default async: " + answer.statusCode() + " " + answer.body());
    }

    static void askOldStyle() throws IOException {
        for (String path : List.of(INFER, "/v2/models/nothing/infer")) {
            HttpURLConnection connection = (HttpURLConnection) new URL(base + path).openConnection();
            connection.setRequestMethod("POST");
            connection.setDoOutput(true);
            connection.setRequestProperty("Content-Type", "application/json; charset=UTF-8");
            connection.getOutputStream().write(v2("[1,2,3]").getBytes(StandardCharsets.UTF_8));
            int status = connection.getResponseCode();
            InputStream stream = status < 400 ? connection.getInputStream() : connection.getErrorStream();
            System.out.println("old " + status + ": " + new String(stream.readAllBytes(), StandardCharsets.UTF_8));
        }
    }

    static void sendBinary(String name, HttpClient client) throws Exception {
        byte[] head = ("{\"inputs\":[{\"name\":\"x\",\"shape\":[1,2],\"datatype\":\"FP32\",\"parameters\":{\"binary_data_size\":8}}],"
            + "\"parameters\":{\"binary_data_output\":true}}").getBytes();
        ByteBuffer body = ByteBuffer.allocate(head.length + 8).order(ByteOrder.LITTLE_ENDIAN).put(head).putFloat(1.5f).putFloat(-2f);
        HttpRequest request = request(INFER).header("Inference-Header-Content-Length", "" + head.length).POST(bytes(body.array())).build();
        HttpResponse<byte[]> answer = client.send(request, BodyHandlers.ofByteArray());
        int cut = Integer.parseInt(answer.headers().firstValue("inference-header-content-length").orElse("0"));
        ByteBuffer tail = ByteBuffer.wrap(answer.body(), cut, answer.body().length - cut).order(ByteOrder.LITTLE_ENDIAN);
        System.out.println(name + ": " + answer.statusCode() + " " + tail.getFloat() + " " + tail.getFloat());
    }

    static void upload(String name, HttpClient client) throws Exception {
        String boundary = "----java" + System.nanoTime();
        String form = "--" + boundary + "\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--" + boundary
            + "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"žluť 日本.jsonl\"\r\n"
            + "Content-Type: application/octet-stream\r\n\r\n{\"a\":1}\n\r\n--" + boundary + "--\r\n";
        say(name, client, request("/v1/files").header("Content-Type", "multipart/form-data; boundary=" + boundary).POST(text(form)).build());
    }

    static void say(String name, HttpClient client, HttpRequest request) throws Exception {
        HttpResponse<String> answer = client.send(request, BodyHandlers.ofString());
        System.out.println(name + ": " + answer.statusCode() + " " + answer.body().replace("\n", " "));
    }

    static HttpRequest json(String path, String body) {
        return request(path).header("Content-Type", "application/json").POST(text(body)).build();
    }

    static HttpRequest.Builder request(String path) {
        return HttpRequest.newBuilder(URI.create(base + path));
    }

    static BodyPublisher text(String body) {
        return BodyPublishers.ofString(body);
    }

    static BodyPublisher bytes(byte[] body) {
        return BodyPublishers.ofByteArray(body);
    }

    static BodyPublisher stream(byte[] body) {
        return BodyPublishers.ofInputStream(() -> new java.io.ByteArrayInputStream(body));
    }

    static String v2(String data) {
        return "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,3],\"datatype\":\"FP32\",\"data\":" + data + "}]}";
    }

    static byte[] gzip(String text) throws IOException {
        ByteArrayOutputStream target = new ByteArrayOutputStream();
        try (GZIPOutputStream squeezed = new GZIPOutputStream(target)) {
            squeezed.write(text.getBytes());
        }
        return target.toByteArray();
    }
}
