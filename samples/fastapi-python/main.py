from fastapi import BackgroundTasks, FastAPI

app = FastAPI()


@app.get("/")
async def index():
    return {"hello": "from FastAPI"}


@app.get("/items/{number}")
async def item(number: int, background: BackgroundTasks, note: str = ""):
    # Runs when the answer is out.
    background.add_task(print, "asked for", number)
    return {"number": number, "note": note}
