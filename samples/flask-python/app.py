from flask import Flask, request

app = Flask(__name__)


@app.get("/")
def index():
    return "Hello from Flask at " + request.base_url + "\n"


@app.post("/sum")
def add():
    return {"sum": sum(request.get_json())}
